/** A process with a VM that is killed or told to end, and one that may not use the device. */
import { assert, describe, it } from "@effect/vitest"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { problem, skipped } from "./capabilities/guests.ts"

const support = (file: string) => join(import.meta.dirname, "support", file)

const start = (...args: ReadonlyArray<string>) => {
  const child = spawn(process.execPath, [support("child.ts"), ...args], { stdio: ["ignore", "pipe", "inherit"] })
  let output = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => output += text)
  return {
    /** Ends it with the signal while its guest runs. */
    end: async (signal: NodeJS.Signals) => {
      while (!output.includes("running")) await once(child.stdout, "data")
      child.kill(signal)
      const [status, by] = await once(child, "close") as [number | null, NodeJS.Signals | null]
      return { status, by, output }
    }
  }
}

describe.skipIf(problem !== undefined)(`a process with a VM on KVM${skipped}`, () => {
  for (const placement of ["Inline", "Worker"] as const) {
    for (const guest of ["counts", "spins"] as const) {
      it(`gives everything back on a signal, ${placement}, while its guest ${guest}`, async () => {
        const ended = await Promise.all([start(placement, guest).end("SIGTERM"), start(placement, guest).end("SIGINT")])
        // NodeRuntime's status for both.
        for (const each of ended) assert.deepStrictEqual(each, { status: 130, by: null, output: "running\nclosed\n" })
      })
    }

    it(`can be killed, and the next one runs, ${placement}`, async () => {
      const killed = await Promise.all([start(placement).end("SIGKILL"), start(placement, "spins").end("SIGKILL")])
      for (const each of killed) assert.deepStrictEqual(each, { status: null, by: "SIGKILL", output: "running\n" })
      assert.strictEqual((await start(placement).end("SIGTERM")).output, "running\nclosed\n")
    })
  }
})

describe.skipIf(process.platform !== "linux" || process.arch !== "x64")("a device that cannot be used", () => {
  /** What the layer says of a file, to a user who has no rights. */
  const told = (path: string) => {
    const { stderr, stdout } = spawnSync(process.execPath, [support("unprivileged.ts"), path], { encoding: "utf8" })
    assert.strictEqual(stderr, "")
    return JSON.parse(stdout) as { readonly reason: unknown; readonly message: string }
  }

  it("because this user may not open it", () => {
    const folder = mkdtempSync(join(tmpdir(), "upcall-kvm-"))
    try {
      const path = join(folder, "kvm")
      writeFileSync(path, "", { mode: 0o000 })
      const { message, reason } = told(path)
      assert.deepStrictEqual(reason, { _tag: "NoDevice", path, errno: 13 })
      assert.match(message, /join the group that owns it/)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it("because it is not there, or no KVM", () => {
    assert.deepStrictEqual(told("/dev/no-kvm").reason, { _tag: "NoDevice", path: "/dev/no-kvm", errno: 2 })
    assert.deepStrictEqual(told("/dev/null").reason, { _tag: "WrongVersion", version: -25 })
  })
})
