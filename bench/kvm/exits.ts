/** One exit through page, dispatcher and handler, and the bare loop in C on the same guest: what several figures share. */
import * as Effect from "effect/Effect"
import * as Kvm from "../../src/layers/Kvm.ts"
import { compare, type Comparison, median } from "../harness.ts"
import type { BareKvm } from "./bareMachine.ts"
import type { LoopName } from "./guest.ts"
import { device, loopGuest, on, start } from "./ourMachine.ts"

/** Each loop makes a write and a read a round. */
export const EXITS_PER_ROUND = 2

/** Processor time of a round, in turns. */
export const compareExits = (bare: BareKvm, loop: LoopName): Promise<Comparison> =>
  on(
    Kvm.layer,
    Effect.gen(function*() {
      const ours = yield* start({ clock: bare.threadNanos, handle: device() })
      const theirs = bare.open(loopGuest)
      const compared = yield* Effect.promise(() => compare(ours.sampler(loop), theirs.sampler(loop)))
      theirs.close()
      return compared
    })
  )

/** What an exit of ours takes more, from each pair of samples, in nanoseconds. */
export const overheads = ({ ours, theirs }: Comparison): ReadonlyArray<number> =>
  ours.map((our, i) => (our - theirs[i]!) / EXITS_PER_ROUND)

export const overhead = (comparison: Comparison): number => median(overheads(comparison))
