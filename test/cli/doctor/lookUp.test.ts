/** This machine, as it is, and devices made for the purpose. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { chmodSync, chownSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Kvm from "../../../src/cli/doctor/kvm.ts"
import * as LookUp from "../../../src/cli/doctor/lookUp.ts"
import { kvmProblem } from "../../support/kvm.ts"

const lookAt = (path: string) => Effect.flatMap(LookUp.machine, (machine) => LookUp.kvm(machine, path))

const findingOf = (facts: Effect.Success<ReturnType<typeof lookAt>>, check: string) =>
  Kvm.diagnose(facts).find((each) => each.check === check)

describe("what upcall doctor looks up", () => {
  it.effect("this machine, without failing", () =>
    Effect.gen(function*() {
      const facts = yield* LookUp.acrn(yield* LookUp.machine, "/nowhere/acrn_hsm")
      assert.strictEqual(facts.platform, `${process.platform} ${process.arch}`)
      assert.deepStrictEqual(facts.device, { _tag: "Absent" })
      const directory = yield* LookUp.acrn(facts, "/")
      assert.deepInclude(directory.device, { _tag: "Refused", code: "EISDIR" })
    }))

  it.effect("no device at all", () =>
    Effect.gen(function*() {
      const facts = yield* lookAt("/nowhere/kvm")
      assert.deepStrictEqual([facts.device, facts.interface, facts.trials], [{ _tag: "Absent" }, undefined, undefined])
      assert.isFalse(Kvm.isReady(Kvm.diagnose(facts)))
    }))

  const isLinux = process.platform === "linux" && process.arch === "x64"
  it.effect.skipIf(!isLinux)("a device that is no KVM", () =>
    Effect.gen(function*() {
      const facts = yield* lookAt("/dev/null")
      assert.deepStrictEqual(facts.device, { _tag: "Opened" })
      assert.deepStrictEqual(facts.interface, { version: -25, extensions: new Map() })
      assert.isUndefined(facts.trials)
      assert.strictEqual(findingOf(facts, "interface")!.verdict, "missing")
    }))

  const problem = kvmProblem()
  const skipped = problem === undefined ? "" : ` (skipped: ${problem})`
  it.live.skipIf(problem !== undefined)(`a KVM that can be used${skipped}`, () =>
    Effect.gen(function*() {
      const facts = yield* lookAt("/dev/kvm")
      const findings = Kvm.diagnose(facts)
      assert.isTrue(Kvm.isReady(findings), JSON.stringify(findings))
      assert.strictEqual(facts.interface!.version, 12)
      assert.isAbove(facts.interface!.extensions.get("NR_MEMSLOTS")!, 31)
      assert.deepStrictEqual(findings.filter(({ verdict }) => verdict === "missing"), [])
      assert.deepStrictEqual(facts.trials!.longMode, { _tag: "Ran" })
    }))

  const NOBODY = 65534
  const isRoot = process.getuid?.() === 0
  /** Runs a program of one module as the user nobody. */
  const asNobody = (program: string) =>
    spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      cwd: join(import.meta.dirname, "../../.."),
      uid: NOBODY,
      gid: NOBODY,
      encoding: "utf8"
    })
  const unable = !isRoot
    ? " (skipped: only root can make a device and be somebody else)"
    : asNobody("import 'effect'").status === 0
    ? ""
    : " (skipped: the user nobody cannot read this folder)"

  it.skipIf(unable !== "")(`a KVM that somebody else may use${unable}`, () => {
    const folder = mkdtempSync(join(tmpdir(), "upcall-doctor-"))
    try {
      chmodSync(folder, 0o755)
      const device = join(folder, "kvm")
      assert.strictEqual(spawnSync("mknod", ["-m", "0660", device, "c", "10", "232"]).status, 0)
      // A group with a name everywhere, which nobody is in.
      const daemon = 1
      chownSync(device, 0, daemon)
      const { stderr, stdout } = asNobody(`
        import { Effect, Layer } from "effect"
        import * as Kvm from "./src/cli/doctor/kvm.ts"
        import * as LookUp from "./src/cli/doctor/lookUp.ts"
        import * as KvmLayer from "./src/layers/Kvm.ts"
        const device = ${JSON.stringify(device)}
        const facts = await Effect.runPromise(Effect.flatMap(LookUp.machine, (machine) => LookUp.kvm(machine, device)))
        const error = await Effect.runPromise(Effect.flip(Effect.scoped(Layer.build(KvmLayer.layerWith({ device })))))
        const finding = Kvm.diagnose(facts).find(({ check }) => check === "device")
        console.log(JSON.stringify({ finding, error: error.message, reason: error.reason }))
      `)
      assert.strictEqual(stderr, "")
      const { error, finding, reason } = JSON.parse(stdout)
      assert.deepStrictEqual(finding, {
        check: "device",
        verdict: "missing",
        detail: `${device} (root:daemon, mode 0660) cannot be opened by nobody: EACCES`,
        remedy: "sudo usermod -aG daemon nobody, then log in again"
      })
      assert.deepStrictEqual(reason, { _tag: "NoDevice", path: device, errno: 13 })
      assert.include(error, "usermod -aG kvm USER")
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
