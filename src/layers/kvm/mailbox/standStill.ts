/**
 * Calls every vCPU back, and keeps the thread until they are there.
 */
import type { DispatcherSide } from "./DispatcherSide.ts"
import { StandstillNext, StandstillSide } from "./StandstillSide.ts"
import { Bell, BELL_WORD } from "./words.ts"

/** False when a vCPU did not come within the time, as when its thread died. */
export const standStill = (
  words: Int32Array<SharedArrayBuffer>,
  sides: ReadonlyArray<DispatcherSide>,
  timeoutMs: number
): boolean => {
  for (const side of sides) side.recall()
  const standstill = new StandstillSide(words, sides, (word) => Atomics.notify(words, word))
  for (;;) {
    switch (standstill.step()) {
      case StandstillNext.Step:
        break
      case StandstillNext.Sleep:
        if (Atomics.wait(words, BELL_WORD, Bell.Asleep, timeoutMs) === "timed-out") return false
        break
      case StandstillNext.End:
        return true
    }
  }
}
