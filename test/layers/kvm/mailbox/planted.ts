/**
 * The mailbox with one step wrong at a time: the exploration of the scenario has to find each of them.
 */
import { DispatcherSide, DispatcherStep } from "../../../../src/layers/kvm/mailbox/DispatcherSide.ts"
import { ListenerNext, ListenerSide, ListenerStep } from "../../../../src/layers/kvm/mailbox/ListenerSide.ts"
import { RunnerNext, RunnerSide, RunnerStep } from "../../../../src/layers/kvm/mailbox/RunnerSide.ts"
import { StandstillNext, StandstillSide, StandstillStep } from "../../../../src/layers/kvm/mailbox/StandstillSide.ts"
import { Bell, BELL_WORD, resultWord, Turn } from "../../../../src/layers/kvm/mailbox/words.ts"
import type { Parts } from "./World.ts"

export interface Planted {
  readonly name: string
  readonly scenario: string
  readonly parts: Partial<Parts>
  readonly problem: RegExp
}

class MarksWhateverIsThere extends RunnerSide {
  override step(): RunnerNext {
    if (this.at !== RunnerStep.FallAsleep) return super.step()
    Atomics.store(this.words, this.turn, Turn.DispatcherWhileAsleep)
    this.at = RunnerStep.LoadTurn
    return RunnerNext.Sleep
  }
}

class RingsFirst extends RunnerSide {
  override exited(result: number): void {
    super.exited(result)
    this.at = RunnerStep.Ring
  }

  override step(): RunnerNext {
    switch (this.at) {
      case RunnerStep.Ring:
        this.at = Atomics.exchange(this.words, BELL_WORD, Bell.Rung) === Bell.Asleep
          ? RunnerStep.Wake
          : RunnerStep.StoreResult
        return RunnerNext.Step
      case RunnerStep.Wake:
        this.wake(BELL_WORD)
        this.at = RunnerStep.StoreResult
        return RunnerNext.Step
      case RunnerStep.StoreTurn:
        super.step()
        return this.waitForTurn(true)
      default:
        return super.step()
    }
  }
}

class RingsInTwoSteps extends RunnerSide {
  private wasAsleep = false
  private hasLooked = false

  override step(): RunnerNext {
    if (this.at !== RunnerStep.Ring) return super.step()
    if (!this.hasLooked) {
      this.wasAsleep = Atomics.load(this.words, BELL_WORD) === Bell.Asleep
      this.hasLooked = true
      return RunnerNext.Step
    }
    this.hasLooked = false
    Atomics.store(this.words, BELL_WORD, Bell.Rung)
    if (!this.wasAsleep) return this.waitForTurn(true)
    this.at = RunnerStep.Wake
    return RunnerNext.Step
  }
}

class ResultAfterTurn extends RunnerSide {
  override exited(result: number): void {
    super.exited(result)
    this.at = RunnerStep.StoreTurn
  }

  override step(): RunnerNext {
    switch (this.at) {
      case RunnerStep.StoreTurn:
        super.step()
        this.at = this.isLeaving ? RunnerStep.Ring : RunnerStep.StoreResult
        return RunnerNext.Step
      case RunnerStep.StoreResult:
        super.step()
        this.at = RunnerStep.Ring
        return RunnerNext.Step
      default:
        return super.step()
    }
  }
}

class WakesNobody extends RunnerSide {
  override step(): RunnerNext {
    return this.at === RunnerStep.Wake ? this.waitForTurn(true) : super.step()
  }
}

class SendsBeforeItArms extends DispatcherSide {
  override beginRecall(): void {
    super.beginRecall()
    if (this.at === DispatcherStep.Arm) this.at = DispatcherStep.Send
  }

  override step(): boolean {
    const { at } = this
    const hasMore = super.step()
    if (at === DispatcherStep.Send) this.at = DispatcherStep.Arm
    if (at === DispatcherStep.Arm) this.at = DispatcherStep.None
    return at === DispatcherStep.Send || at !== DispatcherStep.Arm && hasMore
  }
}

class DoesNotArm extends DispatcherSide {
  override beginRecall(): void {
    super.beginRecall()
    if (this.at === DispatcherStep.Arm) this.at = DispatcherStep.Send
  }
}

class DoesNotSend extends DispatcherSide {
  override step(): boolean {
    if (this.at === DispatcherStep.Send) this.at = DispatcherStep.None
    return super.step()
  }
}

class DoesNotDisarm extends DispatcherSide {
  override step(): boolean {
    if (this.at === DispatcherStep.Disarm) this.at = DispatcherStep.HandOver
    return super.step()
  }
}

class HandsOverInTwoSteps extends DispatcherSide {
  private wasAsleep = false
  private hasLooked = false

  override step(): boolean {
    if (this.at !== DispatcherStep.HandOver) return super.step()
    if (!this.hasLooked) {
      this.wasAsleep = Atomics.load(this.words, this.turn) === Turn.DispatcherWhileAsleep
      this.hasLooked = true
      return true
    }
    this.hasLooked = false
    this.isOut = true
    Atomics.store(this.words, this.turn, this.next)
    this.at = this.wasAsleep ? DispatcherStep.Wake : DispatcherStep.None
    return this.wasAsleep
  }
}

class HandsOverSilently extends DispatcherSide {
  override step(): boolean {
    if (this.at === DispatcherStep.Wake) this.at = DispatcherStep.None
    return super.step()
  }
}

class BelievesItsRecall extends DispatcherSide {
  override step(): boolean {
    if (this.at === DispatcherStep.Send) this.isOut = false
    return super.step()
  }
}

class HandsOverWhatIsOut extends DispatcherSide {
  protected override handOver(to: Turn): void {
    this.isOut = false
    super.handOver(to)
  }
}

class QuietensLate extends ListenerSide {
  override step(): ListenerNext {
    if (this.at !== ListenerStep.Quieten) return super.step()
    this.next = 0
    this.at = ListenerStep.Look
    return ListenerNext.Step
  }

  protected override fallAsleep(): ListenerNext {
    if (Atomics.load(this.words, BELL_WORD) === Bell.Quiet) return super.fallAsleep()
    this.at = ListenerStep.FallAsleep
    Atomics.store(this.words, BELL_WORD, Bell.Quiet)
    return ListenerNext.Step
  }
}

class FallsAsleepWhateverIsThere extends ListenerSide {
  protected override fallAsleep(): ListenerNext {
    Atomics.store(this.words, BELL_WORD, Bell.Asleep)
    this.at = ListenerStep.Quieten
    return ListenerNext.Sleep
  }
}

class DoesNotQuieten extends ListenerSide {
  override step(): ListenerNext {
    if (this.at !== ListenerStep.Quieten) return super.step()
    this.next = 0
    this.at = ListenerStep.Look
    return ListenerNext.Step
  }
}

class LoadsTheResultFirst extends ListenerSide {
  private hasLoaded = false
  private early = 0

  override step(): ListenerNext {
    if (this.at === ListenerStep.Look && !this.hasLoaded) {
      this.early = Atomics.load(this.words, resultWord(this.next))
      this.hasLoaded = true
      return ListenerNext.Step
    }
    this.hasLoaded = false
    const next = super.step()
    if (next === ListenerNext.Back) this.result = this.early
    return next
  }
}

class HearsOneAtATime extends ListenerSide {
  override step(): ListenerNext {
    const next = super.step()
    // What else came back rang as well, it thinks.
    if (next === ListenerNext.Back) this.at = ListenerStep.FallAsleep
    return next
  }
}

class StandsWithoutLooking extends StandstillSide {
  override step(): StandstillNext {
    if (this.at === StandstillStep.FallAsleep) this.at = StandstillStep.Ring
    return super.step()
  }
}

class StandsAndRingsNot extends StandstillSide {
  override step(): StandstillNext {
    return this.at === StandstillStep.Ring ? StandstillNext.End : super.step()
  }
}

class StandsAsleepWhateverIsThere extends StandstillSide {
  override step(): StandstillNext {
    if (this.at !== StandstillStep.FallAsleep) return super.step()
    Atomics.store(this.words, BELL_WORD, Bell.Asleep)
    this.at = StandstillStep.Quieten
    return StandstillNext.Sleep
  }
}

export const planted: ReadonlyArray<Planted> = [
  {
    name: "a runner marks that it sleeps, whatever its turn is by then",
    scenario: "one request",
    parts: { Runner: MarksWhateverIsThere },
    problem: /sleeps/
  },
  {
    name: "a runner waits for a change of a value that it loads too late",
    scenario: "one request",
    parts: { runnerWaitsAtAnything: true },
    problem: /sleeps/
  },
  {
    name: "a runner rings before it gives its turn back",
    scenario: "one request",
    parts: { Runner: RingsFirst },
    problem: /dispatcher sleeps/
  },
  {
    name: "a runner looks at the bell, and then rings",
    scenario: "two requests, answered at once",
    parts: { Runner: RingsInTwoSteps },
    problem: /dispatcher sleeps/
  },
  {
    name: "a runner gives its turn back before its result is there",
    scenario: "pause with a request that is out",
    parts: { Runner: ResultAfterTurn },
    problem: /./
  },
  {
    name: "a runner does not wake the dispatcher",
    scenario: "one request",
    parts: { Runner: WakesNobody },
    problem: /dispatcher sleeps/
  },
  {
    name: "the signal is sent before immediate_exit is set",
    scenario: "pause",
    parts: { Dispatcher: SendsBeforeItArms },
    problem: /through a pause/
  },
  {
    name: "immediate_exit is not set",
    scenario: "pause",
    parts: { Dispatcher: DoesNotArm },
    problem: /through a pause/
  },
  {
    name: "the signal is not sent",
    scenario: "pause",
    parts: { Dispatcher: DoesNotSend },
    problem: /through a pause/
  },
  {
    name: "immediate_exit is never cleared",
    scenario: "pause",
    parts: { Dispatcher: DoesNotDisarm },
    problem: /without an end/
  },
  {
    name: "the dispatcher looks whether the runner sleeps, and then gives it its turn",
    scenario: "one request",
    parts: { Dispatcher: HandsOverInTwoSteps },
    problem: /sleeps/
  },
  {
    name: "the dispatcher does not wake a runner",
    scenario: "one request",
    parts: { Dispatcher: HandsOverSilently },
    problem: /sleeps/
  },
  {
    name: "who was called back counts as back",
    scenario: "pause",
    parts: { Dispatcher: BelievesItsRecall },
    problem: /not its own/
  },
  {
    name: "a vCPU that is out is given away once more",
    scenario: "resume before it is paused",
    parts: { Dispatcher: HandsOverWhatIsOut },
    problem: /./
  },
  {
    name: "the bell is made quiet after the look",
    scenario: "two requests, answered at once",
    parts: { Listener: QuietensLate },
    problem: /dispatcher sleeps/
  },
  {
    name: "the dispatcher falls asleep though the bell was rung",
    scenario: "two requests, answered at once",
    parts: { Listener: FallsAsleepWhateverIsThere },
    problem: /dispatcher sleeps/
  },
  {
    name: "the dispatcher waits for a change of a value that it loads too late",
    scenario: "two requests, answered at once",
    parts: { dispatcherWaitsAtAnything: true },
    problem: /dispatcher sleeps/
  },
  {
    name: "the bell is never made quiet",
    scenario: "two requests, answered at once",
    parts: { Listener: DoesNotQuieten },
    problem: /./
  },
  {
    name: "the result is loaded before the turn",
    scenario: "two vCPUs, pause",
    parts: { Listener: LoadsTheResultFirst },
    problem: /./
  },
  {
    name: "one vCPU is heard for each time the bell rings",
    scenario: "two vCPUs",
    parts: { Listener: HearsOneAtATime },
    problem: /dispatcher sleeps/
  },
  {
    name: "a standstill does not wait",
    scenario: "stand still",
    parts: { Standstill: StandsWithoutLooking },
    problem: /runs on/
  },
  {
    name: "a standstill swallows the ring of who came back",
    scenario: "stand still",
    parts: { Standstill: StandsAndRingsNot },
    problem: /dispatcher sleeps/
  },
  {
    name: "a standstill falls asleep though the bell was rung",
    scenario: "stand still",
    parts: { Standstill: StandsAsleepWhateverIsThere },
    problem: /does not come/
  }
]
