/** The guests of the figures under Upcall: the whole way from `VirtualMachine` to a client's handler. */
import * as Effect from "effect/Effect"
import type { Layer } from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../src/domain/IoRequest.ts"
import * as FlatBinary from "../../src/layers/images/FlatBinary.ts"
import type { Doorbells, Hypervisor } from "../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import type { CreatedVm } from "../../src/services/Vm.ts"
import type { Sampler } from "../harness.ts"
import type { Guest } from "./bareMachine.ts"
import {
  CODE,
  DATA_ADDRESS,
  DATA_PORT,
  entries,
  GUEST_MEMORY_BYTES,
  image,
  LOOP_PORT,
  type LoopName,
  ROUNDS_PORT,
  START_PORT,
  STOP_PORT
} from "./guest.ts"

/** The guest of `guest.ts`, for either VMM. */
export const loopGuest: Guest = { image, address: CODE, entry: CODE, memoryBytes: GUEST_MEMORY_BYTES }

/** Runs what measures on a hypervisor. */
export const on = <A, E, E2>(
  hypervisor: Layer<Hypervisor | Doorbells, E2>,
  measuring: Effect.Effect<A, E, VirtualMachine.VirtualMachine | Scope.Scope | Doorbells>
): Promise<A> =>
  measuring.pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer),
    Effect.provide(hypervisor),
    Effect.runPromise
  )

/** A VM with the guest in it, not started. */
export const load = (guest: Guest) =>
  Effect.gen(function*() {
    const { address, entry, image: bytes, memoryBytes } = guest
    const vm = yield* (yield* VirtualMachine.VirtualMachine).create({ memoryBytes })
    yield* vm.load(yield* FlatBinary.plan({ bytes, address, entry, memoryBytes }))
    return vm
  })

/** A handler that takes the fiber that handlers commonly take: its Effect is not finished when it is returned. */
export const device = (): (request: IoRequest) => Effect.Effect<IoValue> => {
  let port = 0
  let word = 0n
  return (request) =>
    Effect.sync(() => {
      switch (request._tag) {
        case "PortRead":
          return port
        case "PortWrite":
          port = request.value
          return undefined
        case "MmioRead":
          return word
        case "MmioWrite":
          word = request.value
          return undefined
        default:
          return undefined
      }
    })
}

/** A running VM that stands still between samples. */
export interface OurMachine {
  readonly vm: CreatedVm
  readonly sampler: (loop: LoopName) => Sampler
}

/** Starts the guest of `guest.ts`. `clock` tells nanoseconds; `handle` is the client's that the loops access. */
export const start = (options: {
  readonly clock: () => number
  readonly handle: (request: IoRequest) => Effect.Effect<IoValue>
}) =>
  Effect.gen(function*() {
    const { clock, handle } = options
    const vm = yield* load(loopGuest)
    let wanted: { readonly loop: LoopName; readonly rounds: number } | undefined
    let wake: () => void = () => undefined
    let began = 0
    let report: (nanos: number) => void = () => undefined

    const rounds = Effect.callback<IoValue>((resume) => {
      const go = () => resume(Effect.succeed(wanted!.rounds))
      if (wanted === undefined) wake = go
      else go()
    })
    const onPort = (name: string, port: number, bytes: number, answer: Effect.Effect<IoValue>) =>
      vm.io.register({ name, ranges: [IoRange.ports(port, port + bytes - 1)], handle: () => answer })
    yield* onPort("rounds", ROUNDS_PORT, 4, rounds)
    yield* onPort(
      "loop",
      LOOP_PORT,
      4,
      Effect.sync(() => {
        const { loop } = wanted!
        wanted = undefined
        return entries[loop]
      })
    )
    yield* onPort(
      "start",
      START_PORT,
      1,
      Effect.sync(() => {
        began = clock()
        return undefined
      })
    )
    yield* onPort(
      "stop",
      STOP_PORT,
      1,
      Effect.sync(() => {
        report(clock() - began)
        return undefined
      })
    )
    yield* vm.io.register({
      name: "device",
      ranges: [IoRange.ports(DATA_PORT, DATA_PORT), IoRange.mmio(DATA_ADDRESS, DATA_ADDRESS + 3)],
      handle
    })
    yield* vm.start

    const sampler = (loop: LoopName): Sampler => (iterations) =>
      new Promise((resolve) => {
        report = resolve
        wanted = { loop, rounds: iterations }
        wake()
        wake = () => undefined
      })
    const machine: OurMachine = { vm, sampler }
    return machine
  })
