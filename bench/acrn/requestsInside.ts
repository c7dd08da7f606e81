/** Runs in User-Mode Linux: samples of requests through the driver, as long as its input asks for them. */
import * as Effect from "effect/Effect"
import { createInterface } from "node:readline"
import * as Acrn from "../../src/layers/Acrn.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import { makeHeldGuest } from "./heldGuest.ts"

const program = Effect.gen(function*() {
  const sampler = yield* makeHeldGuest
  console.log(JSON.stringify({ ready: true }))
  yield* Effect.promise(async () => {
    for await (const line of createInterface({ input: process.stdin })) {
      if (line === "end") return
      console.log(JSON.stringify({ nanos: await sampler(Number(line)) }))
    }
  })
})

await Effect.runPromise(
  program.pipe(Effect.scoped, Effect.provide(VirtualMachine.layer), Effect.provide(Acrn.layer))
)
// Its input would keep the process.
process.exit()
