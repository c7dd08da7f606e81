/**
 * The measuring guest on the bare v86 core: no page, no dispatcher, no Effect; plain functions answer its accesses.
 */
import * as VcpuRegisters from "../src/domain/VcpuRegisters.ts"
import * as Cpu from "../src/layers/emulated/Cpu.ts"
import type { CpuModule } from "../src/layers/emulated/CpuModule.ts"
import {
  CODE,
  GUEST_MEMORY_BYTES,
  LOOP_PORT,
  PASSES_PORT,
  program,
  START_PORT,
  STOP_PORT,
  TABLE_ADDRESS,
  TABLE_ENTRIES,
  tableBytes
} from "./guest.ts"
import { type Sampler, stopwatch } from "./harness.ts"

/** A guest that stands at its first access between samples. */
export interface BareGuest {
  readonly sampler: (loop: number) => Sampler
  readonly dispose: () => void
}

export const bareGuest = (module: CpuModule, options: {
  readonly bodies: ReadonlyArray<ReadonlyArray<number>>
  readonly addresses: ReadonlyArray<number>
  readonly jit: boolean
  readonly onPortRead?: (port: number) => number
  readonly onPortWrite?: (port: number, value: number) => void
}): BareGuest => {
  const { onPortRead = () => 0, onPortWrite = () => undefined } = options
  const { bytes, loops } = program(options.bodies)
  let wanted: { readonly loop: number; readonly passes: number } | undefined
  let wake: ((passes: number) => void) | undefined
  let elapsed = stopwatch()
  let report: (nanos: number) => void = () => undefined

  const cpu = Cpu.make(module, {
    memoryBytes: GUEST_MEMORY_BYTES,
    now: () => performance.now(),
    random: () => 0,
    onTimers: () => 100,
    jit: options.jit,
    onMmioRead: () => 0,
    onMmioWrite: () => undefined,
    onPortRead: (port) => {
      if (port === PASSES_PORT) {
        return wanted?.passes ?? new Promise<number>((resolve) => {
          wake = resolve
        })
      }
      if (port !== LOOP_PORT) return onPortRead(port)
      const { loop } = wanted!
      wanted = undefined
      return loops[loop]!
    },
    onPortWrite: (port, _size, value) => {
      if (port === START_PORT) elapsed = stopwatch()
      else if (port === STOP_PORT) report(elapsed())
      else onPortWrite(port, value)
    }
  })
  cpu.memory.write(CODE, bytes)
  cpu.memory.write(TABLE_ADDRESS, tableBytes(options.addresses))
  cpu.setRegisters(VcpuRegisters.flat32({ entry: CODE, stack: CODE }))
  const runOn = async () => {
    while (cpu.status !== "Disposed") {
      await cpu.run()
      await new Promise(setImmediate)
    }
  }
  runOn().catch((problem: unknown) => {
    if (cpu.status !== "Disposed") throw problem
  })

  return {
    sampler: (loop) => (iterations) =>
      new Promise((resolve) => {
        const passes = Math.max(1, Math.ceil(iterations / TABLE_ENTRIES))
        report = (nanos) => resolve(nanos * iterations / (passes * TABLE_ENTRIES))
        wanted = { loop, passes }
        wake?.(passes)
        wake = undefined
      }),
    dispose: cpu.dispose
  }
}
