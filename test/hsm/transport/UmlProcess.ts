/**
 * A User-Mode Linux kernel as a process of this machine.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { statfsSync } from "node:fs"
import { tmpdir } from "node:os"

/**
 * - `Exited`, `Killed`: the script's exit status, or the signal that ended it; the machine then halted.
 * - `Crashed`: the machine ended without telling, as in a kernel panic.
 */
export type MachineEnd =
  | { readonly _tag: "Exited"; readonly code: number }
  | { readonly _tag: "Killed"; readonly signal: number }
  | { readonly _tag: "Crashed"; readonly code: number | null; readonly signal: string | null }

const MIB = 2 ** 20

// The kernel keeps its memory in a file: a folder that is memory itself is fast, but one too small would kill it.
const folderFor = (bytes: number): string => {
  try {
    const { bavail, bsize } = statfsSync("/dev/shm")
    return bavail * bsize >= bytes ? "/dev/shm" : tmpdir()
  } catch {
    return tmpdir()
  }
}

// File descriptors that UmlPeer reads: the console and its errors, and the serial lines of init.c.
const CONSOLES = ["con=null", "con0=null,fd:1", "ssl0=fd:0,fd:3", "ssl1=null,fd:4", "ssl2=null,fd:5"]
const ROOT_IS_THE_HOST = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"]

/** Starts a kernel; the scope's end ends it, with every process inside. */
export const start = (
  linux: string,
  memoryMiB: number,
  more: ReadonlyArray<string>
): Effect.Effect<ChildProcess, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(linux, [...ROOT_IS_THE_HOST, ...CONSOLES, "random.trust_cpu=on", `mem=${memoryMiB}M`, ...more], {
        // A group of its own: processes inside are processes here, and end by the group's signal.
        detached: true,
        env: { ...process.env, TMPDIR: folderFor(memoryMiB * MIB) },
        stdio: ["pipe", "pipe", "pipe", "pipe", "pipe", "pipe"]
      })
    ),
    end
  )

const end = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const { exitCode, pid, signalCode } = child
    const hasEnded = pid === undefined || exitCode !== null || signalCode !== null
    if (hasEnded) resume(Effect.void)
    else child.on("exit", () => resume(Effect.void))
    try {
      if (pid !== undefined) process.kill(-pid, "SIGKILL")
    } catch {
      // The group has ended by itself.
    }
  })

const PIPES_GRACE_MS = 2000

/** How the machine ends; `status` are the lines of the serial line that init.c tells it on. */
export const watchEnd = (child: ChildProcess, status: ReadonlyArray<string>): Effect.Effect<MachineEnd> =>
  Effect.callback<MachineEnd>((resume) => {
    const tell = (code: number | null, signal: string | null) => {
      const [, how, value] = /^(exit|signal) (\d+)$/.exec(status[0] ?? "") ?? []
      if (how === "exit") resume(Effect.succeed({ _tag: "Exited", code: Number(value) }))
      else if (how === "signal") resume(Effect.succeed({ _tag: "Killed", signal: Number(value) }))
      else resume(Effect.succeed({ _tag: "Crashed", code, signal }))
    }
    // `close` comes when the pipes are read to their end, which a process that outlived the kernel may hold up.
    child.on("close", tell)
    child.on("exit", (code, signal) => setTimeout(tell, PIPES_GRACE_MS, code, signal).unref())
    child.on("error", () => tell(null, null))
  })
