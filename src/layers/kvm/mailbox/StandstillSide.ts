/**
 * How the dispatching thread waits until every vCPU that it called back is there, without its event loop: for a change
 * that no vCPU may see half of. One step at a time, as in `RunnerSide`.
 *
 * It uses the bell as the listener does, and rings it in the end: what was given back is for the listener to hear.
 */
import type { DispatcherSide } from "./DispatcherSide.ts"
import { Bell, BELL_WORD } from "./words.ts"

/**
 * What is to be done before the next step:
 *
 * - `Step`: nothing.
 * - `Sleep`: wait while the word of the bell is `Asleep`.
 * - `End`: there is no next step; no vCPU runs.
 */
export const StandstillNext = { Step: 0, Sleep: 1, End: 2 } as const
export type StandstillNext = typeof StandstillNext[keyof typeof StandstillNext]

/** The steps. */
export const StandstillStep = { Quieten: 0, Look: 1, FallAsleep: 2, Ring: 3, Wake: 4 } as const

const { FallAsleep, Look, Quieten, Ring, Wake } = StandstillStep

export class StandstillSide {
  protected at: number = Quieten
  protected next = 0
  protected readonly words: Int32Array
  protected readonly sides: ReadonlyArray<DispatcherSide>
  protected readonly wake: (word: number) => void

  /** `wake` wakes whoever waits for a word. */
  constructor(words: Int32Array, sides: ReadonlyArray<DispatcherSide>, wake: (word: number) => void) {
    this.words = words
    this.sides = sides
    this.wake = wake
  }

  begin(): void {
    this.at = Quieten
  }

  step(): StandstillNext {
    const { sides, words } = this
    switch (this.at) {
      case Quieten:
        Atomics.store(words, BELL_WORD, Bell.Quiet)
        this.next = 0
        this.at = sides.length > 0 ? Look : Ring
        return StandstillNext.Step
      case Look:
        if (sides[this.next]!.isAway()) this.at = FallAsleep
        else if (++this.next === sides.length) this.at = Ring
        return StandstillNext.Step
      case FallAsleep:
        this.at = Quieten
        return Atomics.compareExchange(words, BELL_WORD, Bell.Quiet, Bell.Asleep) === Bell.Quiet
          ? StandstillNext.Sleep
          : StandstillNext.Step
      case Ring:
        Atomics.store(words, BELL_WORD, Bell.Rung)
        this.at = Wake
        return StandstillNext.Step
      default:
        this.wake(BELL_WORD)
        return StandstillNext.End
    }
  }
}
