/**
 * Runs one VM with a PC's devices, its console on standard input and output, until the guest or the user ends it.
 */
import type * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import * as Latch from "effect/Latch"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import type { VmTransition } from "../domain/VmState.ts"
import * as StandardPc from "../layers/devices/StandardPc.ts"
import type * as Uart16550 from "../layers/devices/Uart16550.ts"
import type { ImageError } from "../layers/images/ImageError.ts"
import { HypercallGate } from "../services/HypercallGate.ts"
import type { IrqLines } from "../services/Hypervisor.ts"
import type { IoDispatcherError } from "../services/IoDispatcher.ts"
import { VirtualMachine } from "../services/VirtualMachine.ts"
import type { VirtualMachineError } from "../services/VirtualMachineError.ts"
import type { CliError } from "./CliError.ts"
import { Conversation } from "./Conversation.ts"
import * as EscapeKeys from "./EscapeKeys.ts"
import * as Image from "./Image.ts"
import type { Outcome } from "./Outcome.ts"
import { RawMode } from "./RawMode.ts"
import { type ClientStats, Stats } from "./Stats.ts"

/**
 * - `timeoutSeconds`: how long the guest may run, in host time; `undefined` is for ever.
 * - `prompt`: scripted input waits until the guest has printed this; when it is empty, until the guest first prints or
 *   reads a register of its console, because a guest that sets up its serial port drops what came before.
 * - `input`: scripted input, typed before what comes from a standard input that is no terminal.
 * - `useStdin`: whether standard input is the console's, too.
 * - `measure`: whether requests are counted and timed.
 */
export interface RunOptions {
  readonly image: Image.Image
  readonly memoryBytes: number
  readonly timeoutSeconds: number | undefined
  readonly prompt: string
  readonly input: string
  readonly useStdin: boolean
  readonly measure: boolean
}

/** What a run was. `transitions` includes the steps of the VM's closing; `millis` is host time from start to end. */
export interface RunReport {
  readonly outcome: Outcome
  readonly clients: ReadonlyArray<ClientStats>
  readonly transitions: ReadonlyArray<VmTransition>
  readonly millis: number
}

type RunError = CliError | ImageError | IoDispatcherError | VirtualMachineError

const nowNanos = () => performance.now() * 1e6

/**
 * The console's way to standard output: a sink for single bytes, in order, all of which are written before the scope's
 * close returns. `whenClosed` runs when nobody reads any more.
 */
const makePrinter = (
  whenClosed: Effect.Effect<unknown>
): Effect.Effect<(byte: number) => void, never, Scope.Scope | Stdio.Stdio> =>
  Effect.gen(function*() {
    const stdio = yield* Stdio.Stdio
    const bytes = yield* Queue.unbounded<number, Cause.Done>()
    yield* Effect.acquireRelease(
      Stream.fromQueue(bytes).pipe(
        Stream.mapArray((array) => [Uint8Array.from(array)] as const),
        Stream.run(stdio.stdout({ endOnDone: false })),
        Effect.catch(() => whenClosed),
        Effect.forkDetach
      ),
      (fiber) => Effect.andThen(Queue.end(bytes), Fiber.await(fiber))
    )
    return (byte) => void Queue.offerUnsafe(bytes, byte)
  })

/** Keys of a terminal in raw mode, until the scope closes. */
const serveKeyboard = (
  uart: Uart16550.Uart16550["Service"],
  stop: (outcome: Outcome) => Effect.Effect<unknown>
): Effect.Effect<void, never, RawMode | Scope.Scope | Stdio.Stdio> =>
  Effect.gen(function*() {
    const stdio = yield* Stdio.Stdio
    yield* (yield* RawMode).enter
    yield* Console.error("upcall: Ctrl-C ends the VM, Ctrl-A h shows more keys")
    let state = EscapeKeys.initial
    const perform = (action: EscapeKeys.Action) => {
      switch (action._tag) {
        case "Type":
          return uart.send(action.bytes)
        case "Quit":
          return stop({ _tag: "Quit" })
        case "Interrupt":
          return stop({ _tag: "Interrupted" })
        case "Help":
          return Console.error(`\n${EscapeKeys.HELP}`)
      }
    }
    yield* stdio.stdin.pipe(
      Stream.runForEach((typed) => {
        const [next, actions] = EscapeKeys.step(state, typed)
        state = next
        return Effect.forEach(actions, perform, { discard: true })
      }),
      // The terminal went away; nobody is left to stop the VM.
      Effect.andThen(stop({ _tag: "Interrupted" })),
      Effect.catch(() => stop({ _tag: "Interrupted" })),
      Effect.forkScoped
    )
  })

/** Runs the VM. Whatever happens, the VM is gone and the terminal is as before when this returns. */
export const run = (
  options: RunOptions
): Effect.Effect<
  RunReport,
  RunError,
  FileSystem.FileSystem | HypercallGate | IrqLines | RawMode | Stdio.Stdio | VirtualMachine
> =>
  Effect.scoped(Effect.gen(function*() {
    const whole = yield* Effect.scope
    const { profile } = yield* HypercallGate
    const machines = yield* VirtualMachine
    const stdio = yield* Stdio.Stdio
    const plan = yield* Image.plan(options.image, {
      memoryBytes: options.memoryBytes,
      longMode: profile.modes.includes("Long64")
    })

    const stopped = yield* Deferred.make<Outcome>()
    const stop = (outcome: Outcome) => Deferred.succeed(stopped, outcome)
    const print = yield* makePrinter(stop({ _tag: "OutputClosed" }))
    const stats = options.measure ? new Stats(nowNanos) : undefined

    const guest = Effect.gen(function*() {
      const vm = yield* machines.create({ name: "guest", memoryBytes: options.memoryBytes })
      // To the last: the request that ends a guest is completed as its VM goes.
      if (stats !== undefined) yield* Effect.provideService(vm.io.observe(stats.observer), Scope.Scope, whole)

      // The piped input follows the scripted one, which is typed in the guest's own stack.
      const isListening = yield* Latch.make(false)
      const type = () => {
        if (!isListening.isOpen()) Effect.runSync(pc.uart.send(options.input))
        isListening.openUnsafe()
      }
      const conversation = new Conversation([{ waitFor: options.prompt, type: options.input }])
      const pc = yield* vm.attach(StandardPc.make({
        scratch: {},
        uart: {
          onOutput: (byte) => {
            print(byte)
            if (conversation.take(byte) !== undefined) type()
          }
        }
      }))
      if (options.prompt === "") {
        yield* vm.io.observe({
          onRequest: (client, request) => {
            if (client === pc.uart.name && request._tag === "PortRead") type()
          }
        })
      }
      yield* vm.load(plan)

      if (options.useStdin && (yield* stdio.stdinIsTerminal)) yield* serveKeyboard(pc.uart, stop)
      else if (options.useStdin) {
        yield* isListening.await.pipe(
          Effect.andThen(Stream.run(stdio.stdin, pc.uart.input)),
          // A guest may go on without input.
          Effect.ignore,
          Effect.forkScoped
        )
      }

      const startedAt = performance.now()
      const ends = [
        Effect.map((yield* vm.start).ended, (reason): Outcome => ({ _tag: "Ended", reason })),
        Deferred.await(stopped)
      ]
      const seconds = options.timeoutSeconds
      if (seconds !== undefined) ends.push(Effect.as(Effect.sleep(seconds * 1000), { _tag: "TimedOut", seconds }))
      const outcome = yield* Effect.raceAllFirst(ends)
      return { vm, outcome, millis: performance.now() - startedAt }
    })

    const { millis, outcome, vm } = yield* Effect.scoped(guest)
    return { outcome, clients: stats?.perClient ?? [], transitions: yield* vm.transitions, millis }
  }))
