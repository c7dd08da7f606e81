/**
 * VMs that are made, run and destroyed one after the other, each at another point of its life, and what is left of them
 * in the process.
 */
import { Effect } from "effect"
import { until } from "../../../support/machines.ts"
import * as CountingGuest from "./CountingGuest.ts"
import { differences, holdings, memory } from "./resources.ts"

const VCPUS = 2

type Made = Effect.Success<ReturnType<typeof CountingGuest.make>>

const run = ({ device, vm }: Made) => Effect.tap(vm.start, until(() => device.isUnderLoad))

/** Where a VM is when it is destroyed. */
const ways = [
  () => Effect.void,
  ({ vm }: Made) => vm.start,
  run,
  (made: Made) => Effect.flatMap(run(made), ({ pause }) => pause),
  (made: Made) =>
    Effect.gen(function*() {
      const running = yield* (yield* (yield* run(made)).pause).resume
      yield* (yield* running.pause).reset
    }),
  (made: Made) =>
    Effect.gen(function*() {
      yield* run(made)
      made.device.isMute = true
      yield* until(() => made.device.isAskedInVain)
    }),
  (made: Made) =>
    Effect.gen(function*() {
      const { ended } = yield* run(made)
      made.device.isEnding = true
      yield* ended
    })
] as const

const cycle = (index: number) =>
  Effect.scoped(Effect.flatMap(CountingGuest.make(VCPUS), (made) => Effect.asVoid(ways[index % ways.length]!(made))))

/** More than the compiler's and the collector's own comings and goings, less than the RAM of so many guests. */
const KIB_PER_CYCLE = 40
const LEAST_KIB = 6 * 1024

/** Makes and destroys VMs, and tells what is left of the later two thirds: the first third warms up. */
export const cycles = (count: number) =>
  Effect.gen(function*() {
    const first = Math.ceil(count / 3)
    for (let index = 0; index < first; index++) yield* cycle(index)
    const before = holdings()
    const memoryBefore = memory()
    for (let index = first; index < count; index++) yield* cycle(index)
    const left = [...differences(before, holdings())]
    const memoryAfter = memory()
    for (const kind of ["managed", "unmanaged"] as const) {
      const growth = memoryAfter[kind] - memoryBefore[kind]
      if (growth > Math.max(LEAST_KIB, KIB_PER_CYCLE * (count - first))) left.push(`${growth} KiB of ${kind} memory`)
    }
    return left
  })
