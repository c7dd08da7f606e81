/**
 * What the thread of a vCPU does, one step at a time. A step makes at most one access to shared memory, so a test can
 * put any other thread's step between any two of them.
 */
import type { Spin } from "./Spin.ts"
import { Bell, BELL_WORD, resultWord, Turn, turnWord } from "./words.ts"

/**
 * What is to be done before the next step:
 *
 * - `Step`: nothing.
 * - `Spin`: nothing; the processor may be told that this is a wait.
 * - `Enter`: enter the guest, and tell the result by {@link RunnerSide.exited}.
 * - `Sleep`: wait while the word of the turn is `DispatcherWhileAsleep`.
 * - `End`: there is no next step.
 */
export const RunnerNext = { Step: 0, Spin: 1, Enter: 2, Sleep: 3, End: 4 } as const
export type RunnerNext = typeof RunnerNext[keyof typeof RunnerNext]

/** The steps. */
export const RunnerStep = { LoadTurn: 0, FallAsleep: 1, StoreResult: 2, StoreTurn: 3, Ring: 4, Wake: 5 } as const

const { FallAsleep, LoadTurn, Ring, StoreResult, StoreTurn, Wake } = RunnerStep

export class RunnerSide {
  protected at: number = LoadTurn
  protected result = 0
  protected isLeaving = false
  protected readonly words: Int32Array
  protected readonly turn: number
  protected readonly resultAt: number
  protected readonly spin: Spin
  protected readonly wake: (word: number) => void

  /** `wake` wakes whoever waits for a word. */
  constructor(words: Int32Array, vcpu: number, spin: Spin, wake: (word: number) => void) {
    this.words = words
    this.turn = turnWord(vcpu)
    this.resultAt = resultWord(vcpu)
    this.spin = spin
    this.wake = wake
  }

  step(): RunnerNext {
    const { turn, words } = this
    switch (this.at) {
      case LoadTurn:
        return this.look(Atomics.load(words, turn))
      case FallAsleep: {
        const was = Atomics.compareExchange(words, turn, Turn.Dispatcher, Turn.DispatcherWhileAsleep)
        if (was !== Turn.Dispatcher) return this.look(was)
        this.spin.missed()
        this.at = LoadTurn
        return RunnerNext.Sleep
      }
      case StoreResult:
        Atomics.store(words, this.resultAt, this.result)
        this.at = StoreTurn
        return RunnerNext.Step
      case StoreTurn:
        Atomics.store(words, turn, this.isLeaving ? Turn.Gone : Turn.Dispatcher)
        this.at = Ring
        return RunnerNext.Step
      case Ring:
        if (Atomics.exchange(words, BELL_WORD, Bell.Rung) !== Bell.Asleep) return this.waitForTurn(true)
        this.at = Wake
        return RunnerNext.Step
      default:
        this.wake(BELL_WORD)
        return this.waitForTurn(false)
    }
  }

  exited(result: number): void {
    this.result = result
    this.at = StoreResult
  }

  protected look(turn: number): RunnerNext {
    switch (turn) {
      case Turn.Runner:
        this.spin.came()
        return RunnerNext.Enter
      case Turn.Leave:
        this.isLeaving = true
        this.at = StoreTurn
        return RunnerNext.Step
      case Turn.Dispatcher:
        this.at = this.spin.again() ? LoadTurn : FallAsleep
        return RunnerNext.Spin
      default:
        // Woken for nothing.
        this.at = LoadTurn
        return RunnerNext.Sleep
    }
  }

  protected waitForTurn(isDispatcherAwake: boolean): RunnerNext {
    if (this.isLeaving) return RunnerNext.End
    this.spin.begin(isDispatcherAwake)
    this.at = LoadTurn
    return RunnerNext.Step
  }
}
