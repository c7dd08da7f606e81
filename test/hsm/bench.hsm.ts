import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { boot, runNodeInside } from "./boot.ts"
import * as UmlPeer from "./transport/UmlPeer.ts"

const groupIsGone = (pid: number): boolean => {
  try {
    process.kill(-pid, 0)
    return false
  } catch {
    return true
  }
}

describe("the bench", () => {
  it.live("tells a script's output, errors and exit status", () =>
    Effect.gen(function*() {
      const { end, errors, output } = yield* boot({ inside: "echo one; echo two >&2; printf three; exit 3" })
      assert.deepStrictEqual(output, ["one", "three"])
      assert.deepStrictEqual(errors, ["two"])
      assert.deepStrictEqual(end, { _tag: "Exited", code: 3 })
    }))

  it.live("tells the signal that ended a script", () =>
    Effect.gen(function*() {
      const { end } = yield* boot({ inside: "kill -KILL $$" })
      assert.deepStrictEqual(end, { _tag: "Killed", signal: 9 })
    }))

  it.live("passes arguments, variables and input as they are", () =>
    Effect.gen(function*() {
      const words = ["a b", "it's", "$HOME", ""]
      const { output } = yield* boot({
        inside: ["/bin/sh", "-c", "printf '%s\\n' \"$@\" \"$MARK\"; read word; echo \"<$word>\"", "sh", ...words],
        environment: { MARK: "\"quoted\"" },
        onLine: (_, line, say) => {
          if (line === "\"quoted\"") say("heard\n")
        }
      })
      assert.deepStrictEqual(output, [...words, "\"quoted\"", "<heard>"])
    }))

  it.live("cannot change the host's files", () =>
    Effect.gen(function*() {
      const { end } = yield* boot({ inside: "echo x 2>/dev/null >test/hsm/touched" })
      assert.notDeepEqual(end, { _tag: "Exited", code: 0 })
    }))

  it.live("runs a file of the project with Node, koffi and the device", () =>
    Effect.gen(function*() {
      const { end, reports } = yield* runNodeInside({ file: "test/hsm/inside/probe.ts", args: ["a b"] })
      assert.deepStrictEqual(end, { _tag: "Exited", code: 0 })
      assert.deepStrictEqual(reports, [
        { node: process.versions.node, device: true, koffi: true, arguments: ["a b"] }
      ])
    }))

  it.live("ends a machine that does not end", () =>
    Effect.gen(function*() {
      const { end } = yield* boot({ inside: "sleep 1000", seconds: 1 })
      assert.deepStrictEqual(end, { _tag: "TimedOut", seconds: 1 })
    }))

  it.live("tells that a kernel crashed", () =>
    Effect.gen(function*() {
      const { console, end } = yield* boot({ inside: "true", kernelArguments: ["init=/nothing"] })
      assert.strictEqual(end._tag, "Crashed")
      assert.isTrue(console.some((line) => line.includes("Kernel panic")), console.join("\n"))
    }))

  it.live("fails when the kernel finds no hypervisor, with what it said", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(boot({ inside: "true", kernelArguments: ["acrn=/nothing"] }))
      assert.strictEqual(error._tag, "HsmError")
      assert.include(error.message, "acrn-uml: cannot connect to /nothing/calls")
    }))

  it.live("leaves no process, and memory that cannot be touched, behind its scope", () =>
    Effect.gen(function*() {
      const { memory, pid } = yield* Effect.scoped(UmlPeer.make({ script: "sleep 1000" }))
      assert.strictEqual(memory.length, 0)
      assert.isTrue(groupIsGone(pid))
    }))
})
