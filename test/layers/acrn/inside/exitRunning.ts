/** Runs on the real driver: a program that ends while its VM runs, with a request held and others waited for. */
import * as Effect from "effect/Effect"
import * as IoRange from "../../../../src/domain/IoRange.ts"
import * as Acrn from "../../../../src/layers/Acrn.ts"
import * as FlatBinary from "../../../../src/layers/images/FlatBinary.ts"
import * as VirtualMachine from "../../../../src/services/VirtualMachine.ts"
import { report } from "./report.ts"

// mov dx, 0x500; again: out dx, al; inc al; jmp again
const OUT_FOREVER = new Uint8Array(Buffer.from("66ba0005eefec0ebfb", "hex"))

const [how] = process.argv.slice(2)

await Effect.runPromise(
  Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ memoryBytes: 1 << 20 })
    yield* vm.load(yield* FlatBinary.plan({ bytes: OUT_FOREVER, address: 0x1000, memoryBytes: vm.memoryBytes }))
    const asked = { times: 0 }
    yield* vm.io.register({
      name: "never",
      ranges: [IoRange.ports(0x500, 0x500)],
      handle: () => asked.times++ < 10 ? Effect.undefined : Effect.never
    })
    yield* vm.start
    while (asked.times < 10) yield* Effect.sleep(1)
    report("running", asked.times >= 10)
    if (how === "kill") process.kill(process.pid, "SIGKILL")
    if (how === "throw") {
      queueMicrotask(() => {
        throw new Error("nobody catches this")
      })
    } else process.exit(7)
    yield* Effect.never
  }).pipe(Effect.scoped, Effect.provide(VirtualMachine.layer), Effect.provide(Acrn.layer))
)
