/**
 * Boots Debian's i386 kernel on the emulated hypervisor to a shell, types commands into it and checks the answers: once
 * with the host's time, then twice with virtual time and one seed, which must give the same requests to the last bit.
 * Then it tries the same on this machine's KVM, if there is one. Where the processor has no virtualization of its own, KVM
 * interprets the guest, and may end it at an instruction that it does not know; that is told, and is no mistake.
 *
 *   npm run guest:linux -- [--folder FOLDER] [--seed N] [--timeout SECONDS]
 *
 * FOLDER (.cache/guest-linux) is where fetch-linux-guest.sh keeps the guest's files; the whole script gives up after
 * SECONDS (300).
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { Conversation, type Step } from "../src/cli/Conversation.ts"
import * as Table from "../src/cli/Table.ts"
import * as EndReason from "../src/domain/EndReason.ts"
import * as IoRequest from "../src/domain/IoRequest.ts"
import * as StandardPc from "../src/layers/devices/StandardPc.ts"
import * as Emulated from "../src/layers/Emulated.ts"
import type { ImageError } from "../src/layers/images/ImageError.ts"
import * as LinuxBzImage from "../src/layers/images/LinuxBzImage.ts"
import * as Kvm from "../src/layers/Kvm.ts"
import type { Hypervisor, IrqLines } from "../src/services/Hypervisor.ts"
import type { ClientCount, IoDispatcherError } from "../src/services/IoDispatcher.ts"
import * as VirtualMachine from "../src/services/VirtualMachine.ts"
import type { VirtualMachineError } from "../src/services/VirtualMachineError.ts"

const MEMORY_BYTES = 64 * 2 ** 20

/**
 * A console, trust in the emulated clock and random numbers, an end instead of a restart; and without what takes long on
 * an emulated CPU and shows nothing: mitigations, crypto self-tests, the search for ISA cards.
 */
export const COMMAND_LINE = "console=ttyS0 tsc=reliable mitigations=off random.trust_cpu=on reboot=t panic=-1 " +
  "cryptomgr.notests noisapnp"

const READY = "upcall-linux: shell ready"
const PROMPT = "/root # "
const COMMANDS = ["uname -m", "cat /proc/interrupts", "echo $((6*7))", "reboot -f"]

const STEPS: ReadonlyArray<Step> = [
  { waitFor: READY, type: "" },
  ...COMMANDS.map((command) => ({ waitFor: PROMPT, type: `${command}\n` }))
]

/** The guest's files, as scripts/fetch-linux-guest.sh leaves them. */
export interface LinuxGuest {
  readonly kernel: Uint8Array
  readonly initrd: Uint8Array
}

/** Reads the guest's files from the folder that the script made. */
export const readGuest = (folder: string): LinuxGuest => ({
  kernel: readFileSync(join(folder, "vmlinuz")),
  initrd: readFileSync(join(folder, "initrd.cpio"))
})

/** `timeoutSeconds` is in host time. `tell` hears of each stage that the guest has come to. */
export interface BootOptions extends LinuxGuest {
  readonly clock: "Real" | "Virtual"
  readonly seed: number
  readonly timeoutSeconds: number
  readonly tell?: (stage: string) => void
}

/**
 * What one boot was. `reason` is `undefined` when the guest did not end in time. `answers` has what the guest printed
 * after each of the commands that were typed; `traceDigest` is the SHA-256 of every request with its client and value,
 * in order; the seconds are the host's.
 */
export interface BootReport {
  readonly reason: EndReason.EndReason | undefined
  readonly console: string
  readonly answers: ReadonlyArray<string>
  readonly counts: ReadonlyArray<ClientCount>
  readonly requests: number
  readonly traceDigest: string
  readonly readySeconds: number
  readonly seconds: number
}

/** Boots the guest, has the conversation with it, and waits for its end. */
export const boot = (
  options: BootOptions
): Effect.Effect<
  BootReport,
  Emulated.EmulatedError | ImageError | IoDispatcherError | VirtualMachineError
> => {
  const { clock, seed } = options
  return bootOn(Emulated.layerWith({ clock, seed }), options)
}

type Conversing = Omit<BootOptions, "clock" | "seed">

const bootOn = <E>(hypervisor: Layer.Layer<Hypervisor | IrqLines, E>, options: Conversing) =>
  converse(options).pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(hypervisor)), { local: true })
  )

const converse = (options: Conversing) =>
  Effect.gen(function*() {
    const { initrd, kernel, tell = () => undefined, timeoutSeconds } = options
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ name: "linux", memoryBytes: MEMORY_BYTES })

    const startedAt = performance.now()
    const secondsSoFar = () => (performance.now() - startedAt) / 1000
    const trace = createHash("sha256")
    let requests = 0
    yield* vm.io.observe({
      onComplete: (client, request, value) => {
        requests++
        trace.update(`${client}: ${IoRequest.format(request)} = ${String(value)}\n`)
      }
    })

    let text = ""
    let readySeconds = 0
    const typedAt: Array<number> = []
    const conversation = new Conversation(STEPS)
    // Typed in the stack of the access that completed the prompt, so at the same guest time in every run.
    const onOutput = (byte: number) => {
      if (text === "") tell("the kernel speaks")
      text += String.fromCharCode(byte)
      const answer = conversation.take(byte)
      if (answer === undefined) return
      if (answer === "") {
        readySeconds = secondsSoFar()
        return tell("the shell is ready")
      }
      typedAt.push(text.length)
      tell(`typing: ${answer.trimEnd()}`)
      Effect.runSync(pc.uart.send(answer))
    }
    const pc = yield* vm.attach(StandardPc.make({ uart: { onOutput } }))
    yield* vm.load(
      yield* LinuxBzImage.plan({
        kernel: { name: "vmlinuz", bytes: kernel },
        initrd: { name: "initrd.cpio", bytes: initrd },
        commandLine: COMMAND_LINE,
        memoryBytes: MEMORY_BYTES,
        longMode: false
      })
    )
    const running = yield* vm.start
    const reason = yield* Effect.raceFirst(running.ended, Effect.as(Effect.sleep(timeoutSeconds * 1000), undefined))
    return {
      reason,
      console: text,
      answers: typedAt.map((from, index) => text.slice(from, typedAt[index + 1])),
      counts: yield* vm.io.counts,
      requests,
      traceDigest: trace.digest("hex"),
      readySeconds,
      seconds: secondsSoFar()
    } satisfies BootReport
  })

const TAIL_LINES = 15

/** What is wrong with a boot; nothing, when all is well. */
export const problemsOf = (report: BootReport): ReadonlyArray<string> => {
  const { answers, reason } = report
  const [machine = "", interrupts = "", product = ""] = answers
  const problems: Array<string> = []
  const expect = (isThere: boolean, problem: string) => {
    if (!isThere) problems.push(problem)
  }
  expect(report.console.includes(READY), `the guest never printed "${READY}"`)
  expect(answers.length === COMMANDS.length, `${answers.length} of ${COMMANDS.length} commands could be typed`)
  expect(/^i686\r?$/m.test(machine), `${COMMANDS[0]} did not print i686`)
  expect(/^ *\d+: +[1-9]\d* .*\btimer\r?$/m.test(interrupts), "/proc/interrupts has no line of a timer that interrupts")
  expect(/^ *4: +[1-9]\d* .*\bttyS0\r?$/m.test(interrupts), "/proc/interrupts has no line of a ttyS0 that interrupts")
  expect(/^42\r?$/m.test(product), `${COMMANDS[2]} did not print 42`)
  if (reason === undefined) problems.push("the guest did not end in time")
  else if (reason._tag !== "Shutdown" && reason._tag !== "ResetRequested") {
    problems.push(`the guest did not end by a reboot: ${EndReason.format(reason)}`)
  }
  return problems
}

/** A sentence for each difference of two boots that should be equal. */
export const differencesOf = (first: BootReport, second: BootReport): ReadonlyArray<string> =>
  [
    first.traceDigest === second.traceDigest ? [] : ["the two traces differ: virtual time is not reproducible"],
    first.requests === second.requests ? [] : [`${first.requests} requests at first, then ${second.requests}`],
    first.console === second.console ? [] : ["the two consoles differ"]
  ].flat()

const KVM_SECONDS = 20

/** Whether the processor runs guests itself. */
const hasVirtualization = (): boolean => /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync("/proc/cpuinfo", "utf8"))

/** What is wrong on this machine's KVM; a guest that such a KVM ends is not. */
const tryKvm = (guest: LinuxGuest, timeoutSeconds: number, say: (line: string) => void) =>
  bootOn(Kvm.layer, { ...guest, timeoutSeconds, tell: (stage) => say(`kvm: ${stage}`) }).pipe(
    Effect.map((report): ReadonlyArray<string> => {
      const problems = problemsOf(report)
      if (problems.length === 0) {
        say(`kvm: shell after ${report.readySeconds.toFixed(1)} s, end after ${report.seconds.toFixed(1)} s`)
        return []
      }
      const last = report.console.trimEnd().split("\n").at(-1) ?? ""
      const end = report.reason === undefined
        ? `no end after ${timeoutSeconds.toFixed(0)} s`
        : EndReason.format(report.reason)
      say(`kvm: ${end}; the console's last line: ${last.trimEnd()}`)
      if (hasVirtualization()) return problems
      say(
        "kvm: this processor has no virtualization of its own, so its KVM interprets guests, and not all instructions"
      )
      return []
    }),
    Effect.catchTag("KvmError", (error) => {
      say(`kvm: skipped: ${error.message}`)
      return Effect.succeed<ReadonlyArray<string>>([])
    })
  )

const formatCounts = (counts: ReadonlyArray<ClientCount>): string =>
  Table.format(
    [{ title: "client", align: "left" }, { title: "requests", align: "right" }],
    counts.map(({ client, requests }) => [client, requests.toLocaleString("en-US")])
  )

/** The script itself: the number of things that are wrong. */
const main = (options: { readonly folder: string; readonly seed: number; readonly timeoutSeconds: number }) =>
  Effect.gen(function*() {
    const { folder, seed, timeoutSeconds } = options
    const startedAt = performance.now()
    const secondsLeft = () => Math.max(0.001, timeoutSeconds - (performance.now() - startedAt) / 1000)
    const say = (line: string) => {
      console.log(`guest-linux: ${line}`)
    }

    execFileSync("sh", [fileURLToPath(new URL("fetch-linux-guest.sh", import.meta.url)), folder], {
      stdio: ["ignore", "inherit", "inherit"],
      timeout: Math.ceil(secondsLeft() * 1000)
    })
    const guest = readGuest(folder)
    let problems = 0
    const complain = (found: ReadonlyArray<string>) => {
      problems += found.length
      for (const problem of found) say(`WRONG: ${problem}`)
    }

    const run = Effect.fnUntraced(function*(name: string, clock: BootOptions["clock"]) {
      const since = performance.now()
      const report = yield* boot({
        ...guest,
        clock,
        seed,
        timeoutSeconds: secondsLeft(),
        tell: (stage) => say(`${name}: ${((performance.now() - since) / 1000).toFixed(1).padStart(5)} s  ${stage}`)
      })
      const found = problemsOf(report)
      complain(found)
      if (found.length > 0) say(`the console's end:\n${report.console.split("\n").slice(-TAIL_LINES).join("\n")}`)
      // What would follow has no time left.
      if (report.reason === undefined) return yield* Effect.die(new Error(`gave up after ${timeoutSeconds} seconds`))
      say(
        `${name}: shell after ${report.readySeconds.toFixed(1)} s, end after ${report.seconds.toFixed(1)} s, ` +
          `${report.requests.toLocaleString("en-US")} requests`
      )
      return report
    })

    const real = yield* run("real time", "Real")
    console.log(formatCounts(real.counts))
    const first = yield* run("virtual time", "Virtual")
    console.log(formatCounts(first.counts))
    say(`virtual time: SHA-256 of all requests: ${first.traceDigest}`)
    const second = yield* run("virtual time again", "Virtual")
    say(`virtual time again: SHA-256 of all requests: ${second.traceDigest}`)
    complain(differencesOf(first, second))
    complain(yield* tryKvm(guest, Math.min(KVM_SECONDS, secondsLeft()), say))
    say(problems === 0 ? "all is well" : `${problems} ${problems === 1 ? "thing is" : "things are"} wrong`)
    return problems
  })

const options = () => {
  const { values } = parseArgs({
    options: {
      folder: { type: "string", default: fileURLToPath(new URL("../.cache/guest-linux", import.meta.url)) },
      seed: { type: "string", default: "1" },
      timeout: { type: "string", default: "300" }
    }
  })
  const seed = Number(values.seed)
  const timeoutSeconds = Number(values.timeout)
  if (!Number.isInteger(seed)) throw new Error(`--seed is ${values.seed}, but must be an integer`)
  if (!(timeoutSeconds > 0)) throw new Error(`--timeout is ${values.timeout}, but must be a number of seconds above 0`)
  return { folder: values.folder, seed, timeoutSeconds }
}

if (import.meta.main) {
  NodeRuntime.runMain(
    Effect.suspend(() => main(options())).pipe(
      Effect.catchCause((cause) => {
        const error = Cause.squash(cause)
        return Effect.as(Console.error(`guest-linux: ${error instanceof Error ? error.message : String(error)}`), 1)
      }),
      Effect.map((problems) => {
        process.exitCode = problems === 0 ? 0 : 1
      })
    )
  )
}
