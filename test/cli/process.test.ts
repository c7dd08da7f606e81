import { assert, describe, it } from "@effect/vitest"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import { kvmProblem } from "../support/kvm.ts"
import * as guests from "./guests.ts"

const MAIN = join(import.meta.dirname, "../../src/cli/main.ts")

let folder = ""
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "upcall-cli-"))
  for (const [name, bytes] of Object.entries(guests)) writeFileSync(join(folder, name), bytes)
})
afterAll(() => rmSync(folder, { recursive: true }))

const start = (args: ReadonlyArray<string>) =>
  spawn(process.execPath, [MAIN, ...args], { cwd: folder, stdio: ["pipe", "pipe", "pipe"] })

const collect = (child: ChildProcess) => {
  const streams = { stdout: "", stderr: "" }
  child.stdout!.setEncoding("utf8").on("data", (text: string) => streams.stdout += text)
  child.stderr!.setEncoding("utf8").on("data", (text: string) => streams.stderr += text)
  return streams
}

/** Runs `upcall` as a process to its end. */
const upcall = async (args: ReadonlyArray<string>, input = "") => {
  const child = start(args)
  const streams = collect(child)
  child.stdin.end(input)
  const [status, signal] = await once(child, "close") as [number | null, string | null]
  return { status, signal, ...streams }
}

// Gives its command a terminal.
const SCRIPT = "script"
const isUtilLinux = /util-linux/.test(spawnSync(SCRIPT, ["--version"], { encoding: "utf8" }).stdout ?? "")

describe("the upcall process", () => {
  it("exits as the guest did, with all of its output", async () => {
    const { status, stderr, stdout } = await upcall(["run", "echoes"], `${"0123456789".repeat(5000)}q`)
    assert.deepStrictEqual([status, stderr], [5, ""])
    assert.strictEqual(stdout, `${"0123456789".repeat(5000)}q`)
  })

  it("runs the demonstration in real time", async () => {
    const { status, stderr, stdout } = await upcall(["demo"])
    assert.deepStrictEqual([status, stderr], [0, ""])
    assert.match(stdout, /type a byte: got: u\r\nticks: 3\r\n/)
    assert.match(stdout, /^end {3}the guest exited with status 0$/m)
  })

  it("prints an error as one sentence", async () => {
    const { status, stderr, stdout } = await upcall(["run", "nothing-here"])
    assert.deepStrictEqual([status, stdout], [1, ""])
    assert.strictEqual(stderr, "upcall: cannot read nothing-here: there is no such file\n")
  })

  it("knows its version", async () => {
    const { status, stdout } = await upcall(["--version"])
    assert.strictEqual(status, 0)
    assert.match(stdout, /\d+\.\d+\.\d+/)
  })

  it("stops a guest that runs for ever, with input still open", async () => {
    const child = start(["run", "spins", "--timeout", "0.2"])
    const streams = collect(child)
    const [status] = await once(child, "close")
    assert.strictEqual(status, 124)
    assert.match(streams.stderr, /still ran after 0.2 seconds/)
  })

  for (const [signal, expected] of [["SIGTERM", 143], ["SIGINT", 130]] as const) {
    it(`ends the VM on ${signal}`, async () => {
      const child = start(["run", "spins"])
      const streams = collect(child)
      await once(child.stdout, "data")
      child.kill(signal)
      assert.deepStrictEqual(await once(child, "close"), [expected, null])
      assert.deepStrictEqual(streams, { stdout: "y", stderr: "" })
    })
  }

  it("ends without a word when the reader of its output goes", async () => {
    const child = start(["run", "floods"])
    let stderr = ""
    child.stderr.on("data", (text: Buffer) => stderr += text.toString())
    await once(child.stdout, "data")
    child.stdout.destroy()
    assert.deepStrictEqual(await once(child, "exit"), [141, null])
    assert.strictEqual(stderr, "")
  })

  const inTerminal = async (react: (child: ChildProcess) => void) => {
    const command = `stty -g; "${process.execPath}" "${MAIN}" run spins; echo "status $?"; stty -g`
    const child = spawn(SCRIPT, ["-qec", command, "/dev/null"], { cwd: folder, stdio: ["pipe", "pipe", "pipe"] })
    const streams = collect(child)
    const look = () => {
      // The guest's only letter, after the keys' line.
      if (!/shows more keys\r\ny/.test(streams.stdout)) return
      child.stdout.off("data", look)
      react(child)
    }
    child.stdout.on("data", look)
    await once(child, "close")
    const lines = streams.stdout.trim().split(/\r?\n/)
    return { before: lines[0], after: lines.at(-1), output: streams.stdout }
  }

  const reason = isUtilLinux ? "" : " (skipped: script of util-linux, which gives it a terminal, is not installed)"
  it.skipIf(!isUtilLinux)(`leaves a terminal as it was, after Ctrl-C${reason}`, async () => {
    const { after, before, output } = await inTerminal((child) => child.stdin!.write("\x03"))
    assert.match(output, /status 130\r\n/)
    assert.match(before!, /^[0-9a-f]+(:[0-9a-f]+)+$/)
    assert.strictEqual(after, before)
  })
})

const problem = kvmProblem()
const skipped = problem === undefined ? "" : ` (skipped: ${problem})`

describe.skipIf(problem !== undefined)(`the upcall process on KVM${skipped}`, () => {
  for (const placement of ["inline", "worker"]) {
    const choice = ["--hypervisor", "kvm", "--placement", placement]

    it(`runs the demonstration, ${placement}`, async () => {
      const { status, stderr, stdout } = await upcall(["demo", ...choice])
      assert.deepStrictEqual([status, stderr], [0, ""])
      assert.match(stdout, /type a byte: got: u\r\nticks: 3\r\nmmio: 0x600dcafe\r\n/)
      assert.match(stdout, /^uart0 +167 +81 +86 /m)
    })

    it(`tells of a guest that crashed, with its registers, ${placement}`, async () => {
      const { status, stderr, stdout } = await upcall(["run", "crashes", ...choice, "--memory", "2M"])
      assert.deepStrictEqual([status, stdout], [70, ""])
      assert.match(stderr, /^upcall: vCPU 0 shut down: a triple fault\nvCPU 0 in 32-bit mode without paging$/m)
      assert.match(stderr, /^rsi 00000000 {2}rdi 00000000 {2}rbp 00000000 {2}rsp 00200000$/m)
      assert.match(stderr, /^rip 00001000 {2}rflags /m)
      assert.match(stderr, /^`upcall doctor kvm` tells which code/m)
    })

    it(`ends the VM on SIGTERM, ${placement}`, async () => {
      const child = start(["run", "spins", ...choice])
      const streams = collect(child)
      await once(child.stdout, "data")
      child.kill("SIGTERM")
      assert.deepStrictEqual(await once(child, "close"), [143, null])
      assert.deepStrictEqual(streams, { stdout: "y", stderr: "" })
    })
  }

  it("is what auto takes, and says so", async () => {
    const { status, stderr } = await upcall(["run", "exits42", "--hypervisor", "auto"])
    assert.deepStrictEqual([status, stderr], [42, "upcall: running on KVM\n"])
  })

  it("has no more memory than the machine", async () => {
    const { status, stderr } = await upcall(["run", "halts", "--hypervisor", "kvm", "--memory", "1000T"])
    assert.strictEqual(status, 1)
    assert.match(stderr, /^upcall: the kvm hypervisor gives a VM at most [^\n]*\n$/)
  })
})
