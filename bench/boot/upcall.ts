/** Boots Linux on Emulated with real time. */
import * as Effect from "effect/Effect"
import * as StandardPc from "../../src/layers/devices/StandardPc.ts"
import * as Emulated from "../../src/layers/Emulated.ts"
import * as LinuxBzImage from "../../src/layers/images/LinuxBzImage.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import { bootClock, COMMAND_LINE, MEMORY_BYTES, PROMPT, readGuest } from "./files.ts"

const { initrd, kernel } = readGuest()

await Effect.gen(function*() {
  const machines = yield* VirtualMachine.VirtualMachine
  const vm = yield* machines.create({ memoryBytes: MEMORY_BYTES })
  let line = ""
  let stop: () => void = () => undefined
  const onOutput = (byte: number) => {
    line = byte === 0x0a ? "" : line + String.fromCharCode(byte)
    if (line === PROMPT) stop()
  }
  yield* vm.attach(StandardPc.make({ uart: { onOutput } }))
  yield* vm.load(
    yield* LinuxBzImage.plan({
      kernel: { name: "vmlinuz", bytes: kernel },
      initrd: { name: "initrd.cpio", bytes: initrd },
      commandLine: COMMAND_LINE,
      memoryBytes: MEMORY_BYTES,
      longMode: false
    })
  )
  stop = bootClock()
  const running = yield* vm.start
  process.stderr.write(`the guest ended before its prompt: ${JSON.stringify(yield* running.ended)}\n`)
}).pipe(
  Effect.scoped,
  Effect.provide(VirtualMachine.layer),
  Effect.provide(Emulated.layer),
  Effect.runPromise
)
process.exitCode = 1
