/** Builds the KVM layer over a device as a user without any right, and prints what came of it as JSON. */
import { Effect, Layer } from "effect"
import * as Kvm from "../../../../src/layers/Kvm.ts"
import { loadLibc } from "../../../../src/layers/native/Libc.ts"

const NOBODY = 65534

// Loads what may lie where nobody may read.
await loadLibc()
if (process.getuid?.() === 0) {
  process.setgroups!([])
  process.setgid!(NOBODY)
  process.setuid!(NOBODY)
}
await Layer.build(Kvm.layerWith({ device: process.argv[2]! })).pipe(
  Effect.scoped,
  Effect.match({ onFailure: ({ message, reason }) => ({ reason, message }), onSuccess: () => "built" }),
  Effect.runPromise
).then((outcome) => process.stdout.write(JSON.stringify(outcome)))
