/**
 * A User-Mode Linux kernel with the real ACRN driver as the other end of the seam: its hypercalls come over one Unix
 * socket, upcalls go over another, its physical memory is mapped here. Inside, the host's files are the root, read-only,
 * and a shell script runs as root with /dev/acrn_hsm there.
 *
 * The kernel stands still from a hypercall until its answer, and does nothing else meanwhile: nothing in an answer may
 * wait for it, for a completion least of all.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { ChildProcess } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Readable } from "node:stream"
import type { RawHypercall } from "../../../src/domain/Hypercall.ts"
import { artifacts } from "./Artifacts.ts"
import { listen, memoryDescriptor, messages, reply } from "./CallSocket.ts"
import { HsmError } from "./HsmError.ts"
import { LineCutter } from "./LineCutter.ts"
import { physicalMemory } from "./PhysicalMemory.ts"
import { type MachineEnd, start, watchEnd } from "./UmlProcess.ts"

/** Where a line came from: the kernel's console, or the script's output or errors. */
export type LineSource = "Console" | "Output" | "Errors"

/**
 * - `script`: what /bin/sh runs inside.
 * - `memoryMiB`: the machine's memory, default 512.
 * - `kernelArguments`: more of the kernel's command line.
 * - `bootSeconds`: how long the kernel may take to find its hypervisor, default 20.
 * - `onLine`: hears of each line as it comes; `say` writes to the script's input.
 */
export interface UmlOptions {
  readonly script: string
  readonly memoryMiB?: number | undefined
  readonly kernelArguments?: ReadonlyArray<string> | undefined
  readonly bootSeconds?: number | undefined
  readonly onLine?: ((source: LineSource, line: string, say: (text: string) => void) => void) | undefined
}

export interface UmlPeer {
  /** The kernel's process, and the group of all its processes. */
  readonly pid: number
  /** The machine's physical memory: an address is an index. Empty once the scope has closed. */
  readonly memory: Uint8Array<ArrayBuffer>
  /** The driver's interrupt. Harmless at any time, also when the machine is gone. */
  readonly raise: () => void
  /** Lets the machine boot on and answers its hypercalls, one after the other, until it is interrupted. */
  readonly serve: (answer: (call: RawHypercall) => Effect.Effect<number>) => Effect.Effect<never>
  readonly ended: Effect.Effect<MachineEnd>
  /** Lines of a source so far. */
  readonly lines: (source: LineSource) => ReadonlyArray<string>
}

const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "upcall-hsm-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

const collect = (child: ChildProcess, descriptor: number, add: (line: string) => void): void => {
  const cutter = new LineCutter(add)
  const stream = child.stdio[descriptor] as Readable
  stream.on("data", (data: Buffer) => cutter.push(data))
  stream.on("end", () => cutter.end())
  stream.on("error", () => undefined)
}

const readLines = (child: ChildProcess, onLine: UmlOptions["onLine"]) => {
  const lines: Record<LineSource, Array<string>> = { Console: [], Output: [], Errors: [] }
  const status: Array<string> = []
  const { stdin } = child
  stdin?.on("error", () => undefined)
  const say = (text: string) => {
    stdin?.write(text)
  }
  const keep = (source: LineSource) => (line: string) => {
    lines[source].push(line)
    onLine?.(source, line, say)
  }
  collect(child, 1, keep("Console"))
  collect(child, 2, keep("Console"))
  collect(child, 3, keep("Output"))
  collect(child, 4, keep("Errors"))
  collect(child, 5, (line) => status.push(line))
  return { lines, status }
}

/** Boots a machine until its driver has found its hypervisor, and holds it there for `serve`. It ends with the scope. */
export const make = (options: UmlOptions): Effect.Effect<UmlPeer, HsmError, Scope.Scope> =>
  Effect.gen(function*() {
    const { bootSeconds: seconds = 20, kernelArguments = [], memoryMiB = 512 } = options
    const { init, linux } = yield* artifacts
    const folder = yield* temporaryFolder
    const script = join(folder, "script")
    yield* Effect.sync(() => writeFileSync(script, options.script))
    const calls = yield* listen(join(folder, "calls"))
    const upcalls = yield* listen(join(folder, "upcalls"))

    const files = [`uml_dir=${folder}`, `acrn=${folder}`, `init=${init}`, `hsm_script=${script}`]
    const child = yield* start(linux, memoryMiB, [...files, ...kernelArguments])
    const { lines, status } = readLines(child, options.onLine)
    const ended = yield* Deferred.make<MachineEnd>()
    yield* Effect.forkScoped(Effect.flatMap(watchEnd(child, status), (how) => Deferred.succeed(ended, how)))

    const notBooted = (problem: string) =>
      new HsmError({ reason: { _tag: "NotBooted", seconds, problem, console: lines.Console } })
    const connected = Effect.gen(function*() {
      const callSocket = yield* Deferred.await(calls)
      const incoming = yield* messages(callSocket)
      const upcallSocket = yield* Deferred.await(upcalls)
      return { callSocket, incoming, upcallSocket, hello: yield* Queue.take(incoming) }
    })
    const { callSocket, hello, incoming, upcallSocket } = yield* connected.pipe(
      Effect.raceFirst(
        Effect.flatMap(Deferred.await(ended), ({ _tag }) => Effect.fail(notBooted(`it ended, ${_tag}`)))
      ),
      Effect.timeoutOrElse({
        duration: Duration.seconds(seconds),
        orElse: () => Effect.fail(notBooted("it was still silent"))
      })
    )
    const { pid } = child
    const descriptor = memoryDescriptor(hello)
    if (descriptor === undefined || pid === undefined) {
      return yield* Effect.fail(notBooted("its first message is not the glue's, build it again"))
    }
    const memory = yield* physicalMemory(pid, descriptor)

    return {
      pid,
      memory,
      raise: () => {
        if (upcallSocket.writable) upcallSocket.write("u")
      },
      serve: (answer) => {
        const serveNext = Effect.gen(function*() {
          reply(callSocket, yield* answer(yield* Queue.take(incoming)))
        })
        return Effect.andThen(Effect.sync(() => reply(callSocket, 0)), Effect.forever(serveNext))
      },
      ended: Deferred.await(ended),
      lines: (source) => lines[source]
    }
  })
