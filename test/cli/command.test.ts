import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, FileSystem, Layer, PlatformError, Queue, Sink, Stdio, Stream } from "effect"
import { TestClock, TestConsole } from "effect/testing"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { main } from "../../src/cli/command.ts"
import * as Doctor from "../../src/cli/doctor/Report.ts"
import { RawMode } from "../../src/cli/RawMode.ts"
import { elf, multibootHeader } from "../layers/images/support.ts"
import * as guests from "./guests.ts"

const HELLO = join(import.meta.dirname, "../../guests/hello/hello.bin")

const textAt = (offset: number, text: string): Uint8Array => {
  const bytes = new Uint8Array(0x400)
  bytes.set(new TextEncoder().encode(text), offset)
  return bytes
}

const files: Readonly<Record<string, Uint8Array>> = {
  ...guests,
  [HELLO]: readFileSync(HELLO),
  "short.elf": textAt(0, "\x7fELF").subarray(0, 4),
  "good.elf": elf({ bits: 32, put: [[0x1000, guests.exits42]] }),
  "long.elf": elf(),
  "good.multiboot": Uint8Array.from([
    ...multibootHeader(1 << 16, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020),
    ...guests.exits42
  ]),
  "a.vmlinuz": textAt(0x202, "HdrS")
}

const fileSystem = FileSystem.layerNoop({
  readFile: (path) => {
    const bytes = files[path]
    return bytes === undefined
      ? Effect.fail(
        PlatformError.systemError({
          _tag: "NotFound",
          module: "FileSystem",
          method: "readFile",
          pathOrDescriptor: path
        })
      )
      : Effect.succeed(bytes)
  }
})

interface Surroundings {
  /** What comes in, and whether from a terminal. */
  readonly stdin?: Stream.Stream<Uint8Array>
  readonly isTerminal?: boolean
  /** Gets what became of the terminal. */
  readonly rawMode?: Array<string>
  /** Hears of everything that goes to standard output. */
  readonly onOutput?: (text: string) => Effect.Effect<void>
  readonly stdout?: Sink.Sink<void, string | Uint8Array, never, PlatformError.PlatformError>
}

const encode = (text: string) => new TextEncoder().encode(text)

/** Runs `upcall` here, and tells what became of it. */
const upcall = (args: ReadonlyArray<string>, surroundings: Surroundings = {}) =>
  Effect.gen(function*() {
    const { isTerminal = false, onOutput = () => Effect.void, rawMode = [], stdin = Stream.empty } = surroundings
    let output = ""
    const stdout = Sink.forEach((bytes: string | Uint8Array) =>
      Effect.suspend(() => {
        output += typeof bytes === "string" ? bytes : new TextDecoder().decode(bytes)
        return onOutput(output)
      })
    )
    const status = yield* main(args, "1.2.3").pipe(
      Effect.provide(Layer.mergeAll(
        fileSystem,
        Stdio.layerTest({
          stdin,
          stdinIsTerminal: Effect.succeed(isTerminal),
          stdout: () => surroundings.stdout ?? stdout
        }),
        Layer.succeed(
          RawMode,
          RawMode.of({
            enter: Effect.acquireRelease(
              Effect.sync(() => rawMode.push("raw")),
              () => Effect.sync(() => rawMode.push("as before"))
            )
          })
        )
      )),
      Effect.provide(NodeServices.layer)
    )
    const errors = (yield* TestConsole.errorLines).map(String).join("\n")
    const lines = (yield* TestConsole.logLines).map(String).join("\n")
    return { status, output, errors, lines, rawMode }
  })

const usage = (args: ReadonlyArray<string>, pattern: RegExp) =>
  Effect.gen(function*() {
    const { errors, output, status } = yield* upcall(args)
    assert.strictEqual(status, 2)
    assert.match(errors, pattern)
    assert.match(errors, /^upcall: [^\n]+\nSee 'upcall[ a-z]* --help'\.$/)
    assert.strictEqual(output, "")
  })

describe("upcall", () => {
  it.effect("has help with examples, and its version", () =>
    Effect.gen(function*() {
      const help = yield* upcall(["run", "--help"])
      assert.strictEqual(help.status, 0)
      for (const part of ["EXAMPLES", "upcall run hello.bin", "Ctrl-A x", "124", "--memory"]) {
        assert.include(help.lines, part)
      }
      const version = yield* upcall(["--version"])
      assert.strictEqual(version.status, 0)
      assert.include(version.lines, "1.2.3")
    }))

  for (const subject of Doctor.SUBJECTS) {
    it.effect(`tells whether VMs can run on ${subject} here, in words and by its exit status`, () =>
      Effect.gen(function*() {
        const { isReady, text } = yield* Doctor.make(subject)
        const { errors, lines, status } = yield* upcall(["doctor", subject])
        assert.strictEqual(lines, text)
        assert.match(lines, new RegExp(`^VMs can(not)? run on ${subject.toUpperCase()} here`, "m"))
        assert.strictEqual(status, isReady ? 0 : 1)
        assert.strictEqual(errors, "")
      }))
  }

  it.effect("tells which hypervisors can be used, and has help about that", () =>
    Effect.gen(function*() {
      const { errors, lines, status } = yield* upcall(["doctor"])
      for (const name of ["emulated", "simulated", "kvm", "acrn"]) {
        assert.match(lines, new RegExp(`^${name} +(yes|no) `, "m"))
      }
      assert.match(lines, /^`--hypervisor auto` is (kvm|emulated) here\.$/m)
      assert.deepStrictEqual([status, errors], [0, ""])
      const help = yield* upcall(["doctor", "--help"])
      assert.strictEqual(help.status, 0)
      for (const part of ["/dev/kvm", "/dev/acrn_hsm", "Exit status", "upcall doctor"]) assert.include(help.lines, part)
    }))

  it.effect("shows its help, as an error, when it gets no command", () =>
    Effect.gen(function*() {
      const { lines, status } = yield* upcall([])
      assert.strictEqual(status, 2)
      assert.include(lines, "SUBCOMMANDS")
    }))

  for (
    const [name, args, pattern] of [
      ["an unknown command", ["rum"], /unknown subcommand "rum".*did you mean run\?/],
      ["an unknown flag", ["run", "halts", "--memry", "1M"], /--memry.*did you mean --memory\?/],
      ["no image at all", ["run"], /no guest was named/],
      ["two images", ["run", "halts", "--kernel", "halts"], /both given/],
      ["two arguments", ["run", "halts", "spins"], /spins/],
      ["an initrd without a kernel", ["run", "halts", "--initrd", "x"], /--kernel/],
      ["an address with a kernel", ["run", "--kernel", "x", "--address", "0"], /--address/],
      ["memory that is no size", ["run", "halts", "--memory", "lots"], /--memory: "lots", expected: a number of bytes/],
      ["memory that is no pages", ["run", "halts", "--memory", "5"], /--memory: "5", expected: a positive multiple/],
      ["an address that is none", ["run", "halts", "--address", "here"], /--address: "here"/],
      ["a timeout that is none", ["run", "halts", "--timeout", "0"], /--timeout: "0", expected: a number of seconds/],
      ["a seed that is none", ["run", "halts", "--seed", "-1"], /--seed: "-1", expected: an integer/],
      ["input that is none", ["run", "halts", "--input", "\\q"], /--input: "\\q", expected: text/],
      ["an unknown hypervisor", ["run", "halts", "--hypervisor", "xen"], /"emulated" \| "simulated"/],
      ["a clock for the simulator", ["run", "halts", "--hypervisor", "simulated", "--clock", "real"], /--clock/],
      ["virtual time on KVM", ["run", "halts", "--hypervisor", "kvm", "--clock", "virtual"], /--hypervisor emulated$/m],
      [
        "a seed for KVM",
        ["run", "halts", "--hypervisor", "kvm", "--seed", "3"],
        /for --seed give --hypervisor emulated/
      ],
      [
        "virtual time on what there is",
        ["demo", "--hypervisor", "auto", "--clock", "virtual"],
        /--hypervisor emulated$/m
      ],
      [
        "a seed for what there is",
        ["demo", "--hypervisor", "auto", "--seed", "3"],
        /for --seed give --hypervisor emul/
      ],
      ["a placement for the emulator", ["run", "halts", "--placement", "worker"], /belongs to --hypervisor kvm/],
      [
        "a placement for what there is",
        ["run", "halts", "--hypervisor", "auto", "--placement", "worker"],
        /--placement/
      ],
      ["an unknown placement", ["run", "halts", "--hypervisor", "kvm", "--placement", "on"], /"inline" \| "worker"/],
      ["a doctor of an unknown hypervisor", ["doctor", "xen"], /"kvm" \| "acrn"/]
    ] as const
  ) {
    it.effect(`refuses ${name}`, () => usage(args, pattern))
  }

  for (
    const [name, args, pattern] of [
      ["a file that is not there", ["run", "nowhere"], /^upcall: cannot read nowhere: there is no such file$/],
      ["a kernel that is none", ["run", "--kernel", HELLO], /^upcall: [^\n]*hello.bin: .*bzImage[^\n]*$/],
      [
        "an image that does not fit",
        ["run", HELLO, "--memory", "4K"],
        /^upcall: [^\n]*hello.bin: the image needs [^\n]*$/
      ],
      ["more memory than there can be", ["run", "halts", "--memory", "3G"], /^upcall: the emulated hypervisor [^\n]*$/]
    ] as const
  ) {
    it.effect(`says in one sentence what is wrong with ${name}`, () =>
      Effect.gen(function*() {
        const { errors, output, status } = yield* upcall(args)
        assert.strictEqual(status, 1)
        assert.match(errors, pattern)
        assert.strictEqual(output, "")
      }))
  }
})

for (const hypervisor of ["simulated", "emulated"] as const) {
  // The emulated hypervisor's real time is that of the test's clock, which stands still.
  const choice = ["--hypervisor", hypervisor, ...(hypervisor === "emulated" ? ["--clock", "virtual"] : [])]
  const run = (args: ReadonlyArray<string>, surroundings?: Surroundings) =>
    upcall(["run", ...choice, "--memory", "2M", ...args], surroundings)

  describe(`upcall run on ${hypervisor}`, () => {
    it.effect("exits as the guest did", () =>
      Effect.gen(function*() {
        const exited = yield* run(["exits42"])
        assert.deepStrictEqual([exited.status, exited.errors], [42, ""])
        const halted = yield* run(["halts"])
        assert.deepStrictEqual([halted.status, halted.errors], [0, ""])
      }))

    it.effect("runs ELF executables and Multiboot kernels", () =>
      Effect.gen(function*() {
        for (const file of ["good.elf", "good.multiboot"]) {
          const exited = yield* run([file])
          assert.deepStrictEqual([exited.status, exited.errors], [42, ""])
        }
      }))

    it.effect("says what is wrong with an ELF file, and that it has an address", () =>
      Effect.gen(function*() {
        const short = yield* run(["short.elf"])
        assert.deepStrictEqual([short.status, short.errors.trim()], [
          1,
          "upcall: short.elf ends after 4 bytes, but by its header e_ident ends at byte 16; get the whole file again"
        ])
        const program = yield* run(["good.elf", "--address", "0x1000"])
        assert.deepStrictEqual([program.status, program.errors.trim().split("\n").at(-1)], [
          1,
          "upcall: good.elf is an ELF file, which has its own address: leave --address out"
        ])
        const kernel = yield* run(["good.multiboot", "--address", "0x1000"])
        assert.deepStrictEqual([kernel.status, kernel.errors.trim().split("\n").at(-1)], [
          1,
          "upcall: good.multiboot is a Multiboot kernel, which has its own address: leave --address out"
        ])
        const long = yield* run(["long.elf"])
        assert.strictEqual(long.status, 1)
        assert.include(long.errors, "cannot give a vCPU start in mode Long64")
      }))

    it.effect("refuses a Linux kernel that is given as a flat binary", () =>
      Effect.gen(function*() {
        const kernel = yield* run(["a.vmlinuz"])
        assert.deepStrictEqual([kernel.status, kernel.errors.trim().split("\n").at(-1)], [
          1,
          "upcall: a.vmlinuz is a Linux kernel, not a flat binary: give it with --kernel"
        ])
      }))

    it.effect("tells of a guest that crashed", () =>
      Effect.gen(function*() {
        const { errors, status } = yield* run(["crashes"])
        assert.strictEqual(status, 70)
        assert.match(errors, /upcall: vCPU 0 (met an instruction|shut down)/)
      }))

    it.effect("types scripted and piped input once the guest uses its console", () =>
      Effect.gen(function*() {
        const stdin = Stream.make(encode("b"), encode("cq"))
        const { output, status } = yield* run(["echoes", "--input", "a\\n"], { stdin })
        assert.deepStrictEqual([status, output], [5, "a\nbcq"])
      }))

    it.effect("types after a prompt, and measures", () =>
      Effect.gen(function*() {
        const { errors, output, status } = yield* run([HELLO, "--prompt", "byte: ", "--input", "k", "--stats"])
        assert.strictEqual(status, 0)
        assert.strictEqual(
          output,
          "Hello from a guest on Upcall\r\ntype a byte: got: k\r\nticks: 3\r\nmmio: 0x600dcafe\r\n"
        )
        assert.match(errors, /^uart0 +1\d\d +/m)
        assert.match(errors, /^scratch +2 +1 +1 /m)
        assert.match(errors, /^debug-exit +1 +0 +1 /m)
        assert.match(errors, /^life {2}Created -Start-> Running -Pause-> Paused -Destroy-> Destroyed$/m)
        assert.match(errors, /^end {3}the guest exited with status 0$/m)
      }))

    it.effect("gives up on a guest that does not end", () =>
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(run(["spins", "--timeout", "5"]))
        // Until the guest runs there is nothing that could time out.
        while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust("1 second")
        const { errors, output, status } = yield* Fiber.join(fiber)
        assert.deepStrictEqual([status, output], [124, "y"])
        assert.match(errors, /^\nupcall: the guest still ran after 5 seconds [^\n]*$/)
      }))

    it.effect("ends when nobody reads its output", () =>
      Effect.gen(function*() {
        const closed = PlatformError.systemError({ _tag: "Unknown", module: "Stdio", method: "stdout" })
        const { errors, status } = yield* run(["floods"], { stdout: Sink.fail(closed) })
        assert.deepStrictEqual([status, errors], [141, ""])
      }))

    it.effect("a terminal is raw while the VM runs, and types into it", () =>
      Effect.gen(function*() {
        const keys = yield* Queue.make<Uint8Array>()
        yield* Queue.offer(keys, encode("a\x01cb\x01"))
        yield* Queue.offer(keys, encode("\x01hq"))
        const { errors, output, rawMode, status } = yield* run(["echoes"], {
          stdin: Stream.fromQueue(keys),
          isTerminal: true
        })
        assert.deepStrictEqual([status, output], [5, "a\x03b\x01hq"])
        assert.deepStrictEqual(rawMode, ["raw", "as before"])
        assert.include(errors, "Ctrl-C ends the VM")
      }))

    for (const [name, keys, expected] of [["Ctrl-C", "\x03", 130], ["Ctrl-A x", "\x01x", 0]] as const) {
      it.effect(`${name} ends a guest that never looks`, () =>
        Effect.gen(function*() {
          const isRunning = yield* Deferred.make<void>()
          const { output, rawMode, status } = yield* run(["spins"], {
            stdin: Stream.fromEffect(Effect.as(Deferred.await(isRunning), encode(keys))),
            isTerminal: true,
            onOutput: () => Effect.asVoid(Deferred.succeed(isRunning, undefined))
          })
          assert.deepStrictEqual([status, output], [expected, "y"])
          assert.deepStrictEqual(rawMode, ["raw", "as before"])
        }))
    }

    it.effect("interruption ends the VM and restores the terminal", () =>
      Effect.gen(function*() {
        const isRunning = yield* Deferred.make<void>()
        const rawMode: Array<string> = []
        const fiber = yield* Effect.forkChild(run(["spins"], {
          stdin: Stream.never,
          isTerminal: true,
          rawMode,
          onOutput: () => Effect.asVoid(Deferred.succeed(isRunning, undefined))
        }))
        yield* Deferred.await(isRunning)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(rawMode, ["raw", "as before"])
      }))
  })

  it.effect(`upcall demo on ${hypervisor} shows the guest, then the figures`, () =>
    Effect.gen(function*() {
      const { errors, lines, output, status } = yield* upcall(["demo", ...choice])
      assert.deepStrictEqual([status, errors], [0, ""])
      assert.include(output, "type a byte: got: u\r\nticks: 3\r\n")
      assert.match(lines, /^uart0 +167 +81 +86 /m)
    }))
}
