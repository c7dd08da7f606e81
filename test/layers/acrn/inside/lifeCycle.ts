/** Runs on the real driver: one VM from its creation to its end, twice started, with a console. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { readdirSync } from "node:fs"
import * as Acrn from "../../../../src/layers/Acrn.ts"
import * as Uart16550 from "../../../../src/layers/devices/Uart16550.ts"
import * as FlatBinary from "../../../../src/layers/images/FlatBinary.ts"
import * as VirtualMachine from "../../../../src/services/VirtualMachine.ts"
import { report } from "./report.ts"

// mov dx, 0x3f8; mov al, 'A'; again: out dx, al; inc al; cmp al, 'F'; jne again; mov dl, 0xfd; in al, dx;
// mov dl, 0xf8; out dx, al; hlt; jmp -3. Every byte means the same in 16-bit and in 32-bit code.
const GUEST = new Uint8Array(Buffer.from("31d2b603b2f8b041eefec03c4675f9b2fdecb2f8eef4ebfd", "hex"))

const openFiles = () => readdirSync("/proc/self/fd").length
const threads = () => readdirSync("/proc/self/task").length

const program = Effect.gen(function*() {
  const machines = yield* VirtualMachine.VirtualMachine
  const vm = yield* machines.create({ memoryBytes: 1 << 20, name: "first" })
  report("created", { id: vm.id, vcpus: vm.vcpus })
  let output = ""
  yield* vm.attach(Uart16550.make({
    onOutput: (byte) => {
      output += String.fromCharCode(byte)
    }
  }))
  const plan = yield* FlatBinary.plan({ bytes: GUEST, address: 0x1000, memoryBytes: vm.memoryBytes })
  yield* vm.load(plan)
  const lives: Array<string> = []
  let created = vm
  for (let life = 0; life < 2; life++) {
    output = ""
    const running = yield* created.start
    while (output.length < 6) yield* Effect.sleep(1)
    const paused = yield* running.pause
    lives.push(output)
    created = yield* paused.reset
  }
  report("lives", lives)
  report("counts", yield* vm.io.counts)
  report("inspect", yield* vm.requests.inspect)
  report("transitions", (yield* vm.transitions).map(({ command }) => command))
  const driver = yield* Acrn.Driver
  report("refusals", (yield* driver.refusals).map(({ message }) => message))
})

const before = { files: openFiles(), threads: threads() }
const exit = await Effect.runPromiseExit(
  program.pipe(Effect.scoped, Effect.provide(VirtualMachine.layer), Effect.provide(Acrn.layer))
)
report("exit", Exit.isSuccess(exit) ? "success" : String(exit.cause))
report("left", { files: openFiles() - before.files, threads: threads() - before.threads })
