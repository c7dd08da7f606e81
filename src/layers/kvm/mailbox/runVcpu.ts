/**
 * Takes the steps of a vCPU's runner on the thread that calls it, which waits wherever they say so.
 */
import { pause } from "./pause.ts"
import { RunnerNext, RunnerSide } from "./RunnerSide.ts"
import { Spin } from "./Spin.ts"
import { Turn, turnWord } from "./words.ts"

export interface RunnerOptions {
  readonly words: Int32Array<SharedArrayBuffer>
  readonly vcpu: number
  /** The most looks for the next turn before the thread sleeps. */
  readonly spins: number
  /** Enters the guest and returns after its next exit, with any 32-bit number. */
  readonly enter: () => number
}

/** Returns when the runner is sent away. */
export const runVcpu = ({ enter, spins, vcpu, words }: RunnerOptions): void => {
  const side = new RunnerSide(
    words,
    vcpu,
    new Spin({ most: spins, tries: false }),
    (word) => Atomics.notify(words, word)
  )
  const turn = turnWord(vcpu)
  for (;;) {
    switch (side.step()) {
      case RunnerNext.Step:
        break
      case RunnerNext.Spin:
        pause()
        break
      case RunnerNext.Enter:
        side.exited(enter())
        break
      case RunnerNext.Sleep:
        Atomics.wait(words, turn, Turn.DispatcherWhileAsleep)
        break
      case RunnerNext.End:
        return
    }
  }
}
