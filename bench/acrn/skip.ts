/** Figures through the real driver need the kernel of test/hsm. */
import * as Effect from "effect/Effect"
import { artifacts } from "../../test/hsm/transport/Artifacts.ts"
import type { Measurement, Skipped } from "../harness.ts"

/** Measures where the kernel is built, and tells why not elsewhere. */
export const whereBuilt = (measure: () => Promise<Measurement | Skipped>): Promise<Measurement | Skipped> =>
  Effect.runPromise(Effect.matchEffect(artifacts, {
    onFailure: ({ message }) => Effect.succeed<Skipped>({ skipped: message }),
    onSuccess: () => Effect.promise(measure)
  }))
