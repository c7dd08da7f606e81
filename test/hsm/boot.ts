/**
 * Runs a program inside User-Mode Linux, on the real ACRN driver, whose hypervisor is Simulated out here.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Simulated from "../../src/layers/Simulated.ts"
import { AddressSpace, type RawBacking, rawBacking } from "../../src/services/AddressSpace.ts"
import type { ServiceMemoryError } from "../../src/services/ServiceMemory.ts"
import { Upcalls } from "../../src/services/Upcalls.ts"
import { PROJECT } from "./transport/Artifacts.ts"
import type { HsmError } from "./transport/HsmError.ts"
import { type HostRecord, recorder, type RecorderOptions } from "./transport/Recorder.ts"
import * as UmlPeer from "./transport/UmlPeer.ts"
import type { MachineEnd } from "./transport/UmlProcess.ts"

/**
 * - `inside`: what runs inside, as a shell script or as a program with its arguments. The host's files are there,
 *   read-only, at the same places; the folder it starts in is the project's.
 * - `environment`: more variables for it.
 * - `hypervisor`: the options of Simulated.
 * - `onUpcall`: hears of each upcall before the driver does.
 * - `seconds`: how long it may take, default 30; after that the machine is ended, and the end is `TimedOut`.
 */
export interface BootOptions extends Omit<UmlPeer.UmlOptions, "script">, RecorderOptions {
  readonly inside: string | ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly hypervisor?: Simulated.SimulatedOptions
  readonly onUpcall?: () => void
  readonly seconds?: number
}

/** `TimedOut`: the machine had not ended by itself after `seconds`, and was ended. */
export type InsideEnd = MachineEnd | { readonly _tag: "TimedOut"; readonly seconds: number }

/** Lines of the script's output and errors and of the kernel's console, and what passed between driver and host. */
export interface BootResult extends HostRecord {
  readonly end: InsideEnd
  readonly output: ReadonlyArray<string>
  readonly errors: ReadonlyArray<string>
  readonly console: ReadonlyArray<string>
}

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

const scriptOf = ({ environment = {}, inside }: BootOptions): string => {
  // A home that is there and empty of settings: what runs inside must not depend on who runs the tests.
  const variables = { PATH: process.env["PATH"] ?? "/usr/bin:/bin", HOME: "/dev/shm", ...environment }
  return [
    ...Object.entries(variables).map(([name, value]) => `export ${name}=${quote(value)}`),
    `cd ${quote(PROJECT)}`,
    typeof inside === "string" ? inside : `exec ${inside.map(quote).join(" ")}`,
    ""
  ].join("\n")
}

/** Boots, runs, and ends the machine; the result tells everything that was seen. */
export const boot = (
  options: BootOptions
): Effect.Effect<BootResult, HsmError | Simulated.SimulatedError | ServiceMemoryError> =>
  Effect.gen(function*() {
    const seconds = options.seconds ?? 30
    const record: HostRecord = { calls: [], ends: [] }
    const peer = yield* UmlPeer.make({ ...options, script: scriptOf(options) })
    const space = new AddressSpace<RawBacking>()
    yield* Effect.fromResult(space.insertAt(0, rawBacking(peer.memory)))
    const end = yield* Effect.provide(
      Effect.gen(function*() {
        const upcalls = yield* Upcalls
        yield* upcalls.register(() => {
          options.onUpcall?.()
          peer.raise()
        })
        const answer = yield* recorder(record, options)
        return yield* Effect.raceFirst(peer.ended, peer.serve(answer)).pipe(
          Effect.timeoutOrElse({
            duration: Duration.seconds(seconds),
            orElse: () => Effect.succeed<InsideEnd>({ _tag: "TimedOut", seconds })
          })
        )
      }),
      Simulated.layerOver(space, options.hypervisor)
    )
    return {
      ...record,
      end,
      output: peer.lines("Output"),
      errors: peer.lines("Errors"),
      console: peer.lines("Console")
    }
  }).pipe(Effect.scoped)

/**
 * - `file`: a TypeScript file, relative to the project, which Node runs as it is. `args` are its arguments.
 */
export interface NodeInsideOptions extends Omit<BootOptions, "inside"> {
  readonly file: string
  readonly args?: ReadonlyArray<string>
}

/** What a program of the project did inside: `reports` are the lines of its output that are JSON. */
export interface NodeInsideResult extends BootResult {
  readonly reports: ReadonlyArray<unknown>
}

const fromJson = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Unknown))

/** Runs a file of the project with Node inside, where /dev/acrn_hsm is; it reports by printing JSON lines. */
export const runNodeInside = ({ args = [], file, ...options }: NodeInsideOptions) =>
  Effect.map(
    boot({ ...options, inside: [process.execPath, "--no-warnings", file, ...args] }),
    (result): NodeInsideResult => ({
      ...result,
      reports: result.output.flatMap((line) => {
        const report = fromJson(line)
        return report._tag === "Some" ? [report.value] : []
      })
    })
  )
