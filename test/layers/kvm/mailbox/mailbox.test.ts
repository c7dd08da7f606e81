import { assert, describe, it } from "@effect/vitest"
import { RunnerSide, RunnerStep } from "../../../../src/layers/kvm/mailbox/RunnerSide.ts"
import { Spin } from "../../../../src/layers/kvm/mailbox/Spin.ts"
import { Bell, BELL_WORD, makeWords, resultWord, turnWord } from "../../../../src/layers/kvm/mailbox/words.ts"
import { explore, type Model } from "./explore.ts"
import { planted } from "./planted.ts"
import { realParts, type Scenario, World } from "./World.ts"

interface Counted extends Scenario {
  readonly states: number
  readonly orders: bigint
}

const scenarios: ReadonlyArray<Counted> = [
  { name: "one request", script: ["Resume"], requests: [1], answers: "AtOnce", states: 111, orders: 102_786n },
  { name: "two requests", script: ["Resume"], requests: [2], answers: "Later", states: 187, orders: 39_195_455n },
  {
    name: "two requests, answered at once",
    script: ["Resume"],
    requests: [2],
    answers: "AtOnce",
    states: 231,
    orders: 395_086_092n
  },
  {
    name: "two requests, looked for before sleeping",
    script: ["Resume"],
    requests: [2],
    answers: "Later",
    spins: 1,
    states: 263,
    orders: 8_606_061_702n
  },
  {
    name: "pause",
    script: ["Resume", "Pause", "AwaitPaused", "Resume"],
    requests: [1],
    answers: "AtOnce",
    states: 1065,
    orders: 7_563_580_064_349n
  },
  {
    name: "pause with a request that is out",
    script: ["Resume", "Pause", "AwaitPaused", "Resume"],
    requests: [2],
    answers: "Later",
    states: 2239,
    orders: 18_335_246_298_847_596n
  },
  {
    name: "pause twice",
    script: ["Resume", "Pause", "AwaitPaused", "Resume", "Pause", "AwaitPaused", "Resume"],
    requests: [2],
    answers: "Later",
    spins: 1,
    states: 12_538,
    orders: 4_841_966_933_556_151_113_710_660_445_906n
  },
  {
    name: "resume before it is paused",
    script: ["Resume", "Pause", "Resume"],
    requests: [2],
    answers: "Later",
    states: 3704,
    orders: 3_320_467_059_943_873_687n
  },
  {
    name: "pause, reset, run",
    script: ["Resume", "Pause", "AwaitPaused", "Reset", "Resume"],
    requests: [2],
    answers: "Later",
    states: 4286,
    orders: 7_459_850_331_621_197_916_896n
  },
  {
    name: "stand still",
    script: ["Resume", "StandStill"],
    requests: [2],
    answers: "Later",
    spins: 1,
    states: 8819,
    orders: 2_346_411_025_057_994_328_647_892n
  },
  {
    name: "leave",
    script: ["Resume", "Pause", "AwaitPaused", "Leave", "AwaitGone"],
    requests: [2],
    answers: "Later",
    spins: 1,
    states: 2386,
    orders: 26_134_835_330_620_284n
  },
  {
    name: "leave before it ran",
    script: ["Leave", "AwaitGone"],
    requests: [0],
    answers: "Later",
    states: 53,
    orders: 131n
  },
  {
    name: "two vCPUs",
    script: ["Resume"],
    requests: [1, 1],
    answers: "Later",
    states: 9571,
    orders: 108_991_358_783_108_928_918n
  },
  {
    name: "two vCPUs, stand still",
    script: ["Resume", "StandStill"],
    requests: [1, 0],
    answers: "AtOnce",
    states: 179_245,
    orders: 23_747_861_403_540_957_249_364_022_046_753_345_802_470_997n
  },
  {
    name: "two vCPUs, pause",
    script: ["Resume", "Pause", "AwaitPaused", "Resume"],
    requests: [1, 0],
    answers: "AtOnce",
    states: 145_221,
    orders: 670_918_485_373_017_108_665_278_406_928_748_999_002_606n
  },
  {
    name: "two vCPUs, leave",
    script: ["Resume", "Pause", "AwaitPaused", "Leave", "AwaitGone"],
    requests: [0, 0],
    answers: "Later",
    states: 32_739,
    orders: 5_625_168_549_877_854_671_500_972_920n
  }
]

/** Runners that come out of the guest at the same time, up to where they wait for their next turn. */
const exits = (count: number, bell: Bell): Model => {
  const words = makeWords(count)
  words[BELL_WORD] = bell
  const wakes = { count: 0 }
  const runners = Array.from({ length: count }, (_, vcpu) => {
    const runner = new RunnerSide(words, vcpu, new Spin({ most: 0, tries: false }), () => wakes.count++)
    runner.exited(vcpu)
    return runner
  })
  const isBusy = (runner: RunnerSide) => (runner as unknown as { readonly at: number }).at !== RunnerStep.LoadTurn
  return {
    state: [runners, wakes],
    words,
    usedWords: [BELL_WORD, ...runners.flatMap((_, vcpu) => [turnWord(vcpu), resultWord(vcpu)])],
    moves: () =>
      runners.filter(isBusy).map((runner) => ({
        name: String(runners.indexOf(runner)),
        isOptional: false,
        take: () => void runner.step()
      })),
    problem: () => undefined,
    problemAtRest: () => {
      const wanted = bell === Bell.Asleep ? 1 : 0
      return wakes.count === wanted ? undefined : `${wakes.count} wake-ups instead of ${wanted}`
    },
    isDone: () => !runners.some(isBusy)
  }
}

const factorial = (n: number): bigint => n < 2 ? 1n : BigInt(n) * factorial(n - 1)

const choose = (n: number, k: number): bigint => factorial(n) / factorial(k) / factorial(n - k)

describe("mailbox", () => {
  it("two exits of three steps each have C(6, 3) orders, three have 9! / 3!^3", () => {
    assert.deepStrictEqual(explore(exits(2, Bell.Quiet)), { states: 16, orders: choose(6, 3), failure: undefined })
    assert.deepStrictEqual(explore(exits(3, Bell.Quiet)), {
      states: 64,
      orders: factorial(9) / factorial(3) ** 3n,
      failure: undefined
    })
  })

  it("who rings first wakes a dispatcher that sleeps, and nobody else does", () => {
    // Of all C(7, 3) orders of a first with four steps and a second with three, without those in which the second rings
    // before the first; and the same the other way round.
    const orders = 2n * (choose(7, 3) - choose(5, 3))
    const { failure, orders: counted } = explore(exits(2, Bell.Asleep))
    assert.isUndefined(failure)
    assert.strictEqual(counted, orders)
  })

  for (const scenario of scenarios) {
    it(`every order of: ${scenario.name}`, () => {
      const { failure, orders, states } = explore(new World(scenario))
      assert.isUndefined(failure)
      assert.deepStrictEqual({ states, orders }, { states: scenario.states, orders: scenario.orders })
    })
  }

  for (const { name, parts, problem, scenario } of planted) {
    it(`is found: ${name}`, () => {
      const where = scenarios.find((each) => each.name === scenario)!
      const { failure } = explore(new World(where, { ...realParts, ...parts }))
      assert.match(failure?.problem ?? "", problem)
    })
  }
})
