/** Guests for KVM's capabilities: real mode, where every KVM takes interrupts, and flat 32-bit programs without any. */
import { Effect, Layer, type Scope } from "effect"
import { readdirSync } from "node:fs"
import * as VcpuRegisters from "../../../../src/domain/VcpuRegisters.ts"
import * as Kvm from "../../../../src/layers/Kvm.ts"
import type { Hypervisor } from "../../../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../../../src/services/VirtualMachine.ts"
import type { Code } from "../../../support/guest.ts"
import { kvmProblem } from "../../../support/kvm.ts"

export const problem = kvmProblem()

/** For the names of tests, so that a report says why they were skipped. */
export const skipped = problem === undefined ? "" : ` (skipped: ${problem})`

type Provided = VirtualMachine.VirtualMachine | Hypervisor | Kvm.Capabilities | Scope.Scope

/** Runs a program on a KVM layer of its own. */
export const onKvm =
  (options: Kvm.KvmOptions = {}) =>
  <A, E, R>(program: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Provided>> =>
    program.pipe(
      Effect.scoped,
      Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Kvm.layerWith(options))), { local: true })
    ) as Effect.Effect<A, E, Exclude<R, Provided>>

/** A program fails the test when it leaves a file open. */
export const leavingNoFile = <A, E, R>(program: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const before = openFiles()
    return Effect.tap(program, () =>
      Effect.suspend(() => {
        const after = openFiles()
        return after === before ? Effect.void : Effect.die(new Error(`${after - before} files were left open`))
      }))
  })

const openFiles = (): number => readdirSync("/proc/self/fd").length

const le16 = (value: number): Code => [value & 0xff, value >> 8 & 0xff]
const le32 = (value: number): Code => [...le16(value), ...le16(value >>> 16)]

export const hlt: Code = [0xf4]
export const cli: Code = [0xfa]
export const sti: Code = [0xfb]
export const iret: Code = [0xcf]
/** Ends the guest: nothing can wake it. */
export const stop: Code = [...cli, ...hlt]
/** HLT, and again after each interrupt. */
export const idle: Code = [...hlt, 0xeb, 0xfd]

/** OUT DX, AL with constants, in real mode. */
export const outb = (port: number, value: number): Code => [0xba, ...le16(port), 0xb0, value, 0xee]

const movEcx = (value: number): Code => [0x66, 0xb9, ...le32(value)]
const movEax = (value: number): Code => [0x66, 0xb8, ...le32(value)]
const orEax = (value: number): Code => [0x66, 0x0d, ...le32(value)]
const clearEdx: Code = [0x66, 0x31, 0xd2]
const rdmsr: Code = [0x0f, 0x32]
const wrmsr: Code = [0x0f, 0x30]

const writeMsr = (msr: number, low: number): Code => [...movEcx(msr), ...movEax(low), ...clearEdx, ...wrmsr]

const APIC_BASE = 0x1b
const SPURIOUS_VECTOR = 0x80f
const END_OF_INTERRUPT = 0x80b

/** Turns the local APIC on, in the mode in which its registers are MSRs: real mode does not reach its memory. */
export const enableLocalApic: Code = [
  ...movEcx(APIC_BASE),
  ...rdmsr,
  ...orEax(0xc00),
  ...wrmsr,
  ...writeMsr(SPURIOUS_VECTOR, 0x1ff)
]

/** The local APIC's interrupt is served. */
export const endOfMessage: Code = writeMsr(END_OF_INTERRUPT, 0)

/** The pair of 8259s: lines 0 to 7 are vectors from 0x20; `mask` has a 1 for each line of them that is off. */
export const programPic = (mask: number): Code => [
  ...outb(0x20, 0x11),
  ...outb(0x21, 0x20),
  ...outb(0x21, 0x04),
  ...outb(0x21, 0x01),
  ...outb(0x21, mask)
]

/** A handler that tells a port which vector came, by a write of it. */
export const tell = (port: number, vector: number, endOfInterrupt: Code): Code => [
  0x50,
  0x52,
  ...outb(port, vector),
  ...endOfInterrupt,
  0x5a,
  0x58,
  ...iret
]

const CODE = 0x1000
const HANDLERS = 0x2000
const HANDLER_BYTES = 0x100
const STACK = 0x8000

/** A VM in real mode with a program and handlers by vector. */
export const realMode = (program: Code, handlers: Readonly<Record<number, Code>> = {}) =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ memoryBytes: 0x2_0000 })
    yield* vm.memory.write(CODE, Uint8Array.from(program))
    for (const [index, [vector, code]] of Object.entries(handlers).entries()) {
      const at = HANDLERS + index * HANDLER_BYTES
      yield* vm.memory.write(at, Uint8Array.from(code))
      yield* vm.memory.write(Number(vector) * 4, Uint8Array.from([...le16(at), 0, 0]))
    }
    yield* vm.setRegisters(0, VcpuRegisters.realMode({ ip: CODE, sp: STACK }))
    return vm
  })

/** A VM that runs a flat 32-bit program. */
export const flat = (code: Uint8Array) =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ memoryBytes: 0x2_0000 })
    yield* vm.memory.write(CODE, code)
    yield* vm.setRegisters(0, VcpuRegisters.flat32({ entry: CODE, stack: STACK }))
    return vm
  })
