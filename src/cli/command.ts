/**
 * The `upcall` command: flags, help and exit statuses. The only file that knows Effect's unstable `cli` modules.
 */
import * as Cause from "effect/Cause"
import * as Argument from "effect/cli/Argument"
import * as CliConfig from "effect/cli/CliConfig"
import * as ParseError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { fileURLToPath } from "node:url"
import * as VirtualMachine from "../services/VirtualMachine.ts"
import * as Doctor from "./doctor/Report.ts"
import * as Hypervisors from "./Hypervisors.ts"
import type { Image } from "./Image.ts"
import * as Keystrokes from "./Keystrokes.ts"
import * as MemorySize from "./MemorySize.ts"
import * as Outcome from "./Outcome.ts"
import type { RawMode } from "./RawMode.ts"
import * as Registers from "./Registers.ts"
import { run as runVm, type RunOptions, type RunReport } from "./run.ts"
import * as Stats from "./Stats.ts"

/** A command that did its work, and its exit status. */
class Finished {
  readonly _tag = "Finished"
  readonly status: number
  constructor(status: number) {
    this.status = status
  }
}

/** A flag whose text has a grammar of its own. */
const parsedBy = <A>(parse: (text: string) => Result.Result<A, string>) => (flag: Flag.Flag<string>): Flag.Flag<A> =>
  Flag.filterMap(
    flag,
    (text) => Result.getSuccess(parse(text)),
    (text) => Result.match(parse(text), { onFailure: (expected) => expected, onSuccess: () => "" })
  )

const choiceFlags = {
  hypervisor: Flag.Literals("hypervisor", Hypervisors.NAMES).pipe(
    Flag.withDefault("emulated" as const),
    Flag.withDescription(
      "emulated: any 32-bit x86 guest; simulated: a small subset; kvm: this processor; auto: kvm where it works, else " +
        "emulated (default emulated)"
    )
  ),
  clock: Flag.Literals("clock", Hypervisors.CLOCKS).pipe(
    Flag.optional,
    Flag.withDescription("Guest time: the host's, or counted in instructions (only emulated; default real)")
  ),
  placement: Flag.Literals("placement", Hypervisors.PLACEMENTS).pipe(
    Flag.optional,
    Flag.withDescription(
      "vCPUs in the thread that serves them, or each in one of its own (only kvm; default inline)"
    )
  ),
  seed: Flag.Int("seed").pipe(
    Flag.filter((seed) => seed >= 0 && seed <= 0xffff_ffff, () => "an integer from 0 to 4294967295"),
    Flag.optional,
    Flag.withMetavar("integer"),
    Flag.withDescription(
      `Decides what is left to chance: with virtual time a run can be repeated (default ${Hypervisors.DEFAULT_SEED})`
    )
  )
}

const DEFAULT_MEMORY = 64 * 2 ** 20
const DEFAULT_APPEND = "console=ttyS0 reboot=k"

const runFlags = {
  image: Argument.String("image").pipe(
    Argument.optional,
    Argument.withDescription("An ELF executable, a Multiboot kernel, or a flat binary of 32-bit code")
  ),
  address: Flag.String("address").pipe(
    parsedBy(MemorySize.parseAddress),
    Flag.optional,
    Flag.withMetavar("address"),
    Flag.withDescription("Where the flat binary is put and entered (default 0x1000)")
  ),
  kernel: Flag.String("kernel").pipe(
    Flag.optional,
    Flag.withMetavar("file"),
    Flag.withDescription("A Linux kernel (bzImage) instead of a flat binary")
  ),
  initrd: Flag.String("initrd").pipe(
    Flag.optional,
    Flag.withMetavar("file"),
    Flag.withDescription("The kernel's initial RAM disk")
  ),
  append: Flag.String("append").pipe(
    Flag.optional,
    Flag.withMetavar("text"),
    Flag.withDescription(`The kernel's command line (default "${DEFAULT_APPEND}")`)
  ),
  memory: Flag.String("memory").pipe(
    parsedBy(MemorySize.parse),
    Flag.withDefault(DEFAULT_MEMORY),
    Flag.withMetavar("size"),
    Flag.withDescription(`RAM: bytes, or a number with K, M or G (default ${MemorySize.format(DEFAULT_MEMORY)})`)
  ),
  ...choiceFlags,
  timeout: Flag.Finite("timeout").pipe(
    Flag.filter((seconds) => seconds > 0, () => "a number of seconds above 0"),
    Flag.optional,
    Flag.withMetavar("seconds"),
    Flag.withDescription("Stops a guest that runs longer, with exit status 124")
  ),
  input: Flag.String("input").pipe(
    parsedBy(Keystrokes.parse),
    Flag.withDefault(""),
    Flag.withMetavar("text"),
    Flag.withDescription("Typed into the console before piped input; \\n, \\r, \\t, \\xHH and \\\\ as in C")
  ),
  prompt: Flag.String("prompt").pipe(
    Flag.withDefault(""),
    Flag.withMetavar("text"),
    Flag.withDescription("Holds --input and piped input back until the guest has printed this text")
  ),
  stats: Flag.Boolean("stats").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Prints requests and latencies by device, and the VM's life, to standard error")
  )
}

type RunFlags = Command.Command.Config.Infer<typeof runFlags>
type ChoiceFlags = Command.Command.Config.Infer<typeof choiceFlags>

const refuse = (message: string) => Effect.fail(new ParseError.ValidationError({ message }))

const imageOf = (flags: RunFlags): Effect.Effect<Image, ParseError.ValidationError> => {
  const [image, kernel, initrd] = [flags.image, flags.kernel, flags.initrd].map(Option.getOrUndefined)
  const isLinuxOnly = initrd !== undefined || Option.isSome(flags.append)
  if (kernel === undefined) {
    if (image === undefined) return refuse("no guest was named; give an IMAGE, or --kernel FILE")
    if (isLinuxOnly) return refuse("--initrd and --append belong to a Linux guest; give --kernel FILE, too")
    return Effect.succeed({
      _tag: "File",
      path: image,
      address: Option.getOrUndefined(flags.address)
    })
  }
  if (image !== undefined) return refuse("an IMAGE and --kernel were both given; a VM starts one of them")
  if (Option.isSome(flags.address)) return refuse("--address belongs to a flat binary; a Linux kernel has its own")
  const commandLine = Option.getOrElse(flags.append, () => DEFAULT_APPEND)
  return Effect.succeed({ _tag: "Linux", kernel, initrd, commandLine })
}

/** What was chosen; undefined is to be found out. */
const choiceOf = (
  flags: ChoiceFlags
): Effect.Effect<Hypervisors.Choice | undefined, ParseError.ValidationError> => {
  const { hypervisor } = flags
  const clock = Option.getOrUndefined(flags.clock)
  const placement = Option.getOrUndefined(flags.placement)
  const seed = Option.getOrElse(flags.seed, () => Hypervisors.DEFAULT_SEED)
  if (placement !== undefined && hypervisor !== "kvm") {
    return refuse("--placement belongs to --hypervisor kvm; give that, or leave --placement out")
  }
  switch (hypervisor) {
    case "emulated":
      return Effect.succeed({ _tag: "Emulated", clock: clock ?? "real", seed })
    case "simulated":
      return clock === undefined
        ? Effect.succeed({ _tag: "Simulated", seed })
        : refuse("--clock belongs to --hypervisor emulated; simulated time is always virtual")
    case "kvm":
    case "auto": {
      const instead = "give --hypervisor emulated"
      if (clock === "virtual") return refuse(`on KVM guests have the host's time; for --clock virtual ${instead}`)
      if (Option.isSome(flags.seed)) return refuse(`on KVM no run can be repeated; for --seed ${instead}`)
      return Effect.succeed(
        hypervisor === "auto" ? undefined : { _tag: "Kvm", placement: placement ?? Hypervisors.DEFAULT_PLACEMENT }
      )
    }
  }
}

/** What the flags choose, or what is best here, which is then said. */
const settle = (flags: ChoiceFlags) =>
  Effect.gen(function*() {
    const chosen = yield* Effect.orDie(choiceOf(flags))
    if (chosen !== undefined) return chosen
    const { choice, explanation } = yield* Hypervisors.automatic()
    yield* Console.error(`upcall: ${explanation}`)
    return choice
  })

const runOn = (choice: Hypervisors.Choice, options: RunOptions) =>
  Effect.provide(runVm(options), VirtualMachine.layer.pipe(Layer.provideMerge(Hypervisors.layer(choice))), {
    local: true
  })

const formatReport = (report: RunReport): string => Stats.format({ ...report, outcome: Outcome.format(report.outcome) })

/** Where a vCPU stood because of which the guest ended. */
const registersOf = ({ outcome }: RunReport): ReadonlyArray<string> => {
  const text = outcome._tag === "Ended" ? Registers.ofReason(outcome.reason) : undefined
  return text === undefined ? [] : [text]
}

/** A crash may be this KVM's doing rather than the guest's. */
const hintOf = (choice: Hypervisors.Choice, { outcome }: RunReport): ReadonlyArray<string> =>
  choice._tag === "Kvm" && outcome._tag === "Ended" && Outcome.exitStatus(outcome) === Outcome.EXIT.crash &&
    outcome.reason._tag !== "Exited"
    ? ["`upcall doctor kvm` tells which code this KVM does not run; --hypervisor emulated may run it"]
    : []

const finish = (report: RunReport) => Effect.fail(new Finished(Outcome.exitStatus(report.outcome)))

const run = Command.make("run", runFlags, (flags) =>
  Effect.gen(function*() {
    const timeout = Option.getOrUndefined(flags.timeout)
    const choice = yield* settle(flags)
    const report = yield* runOn(choice, {
      image: yield* Effect.orDie(imageOf(flags)),
      memoryBytes: flags.memory,
      timeoutSeconds: timeout,
      prompt: flags.prompt,
      input: flags.input,
      useStdin: true,
      measure: flags.stats
    })
    if (flags.stats) yield* Console.error(`\n${formatReport(report)}`)
    if (Outcome.isWorthTelling(report.outcome)) {
      const lines = [Outcome.format(report.outcome), ...registersOf(report), ...hintOf(choice, report)]
      yield* Console.error(`\nupcall: ${lines.join("\n")}`)
    }
    return yield* finish(report)
  })).pipe(
    Command.validate((flags) => Effect.andThen(imageOf(flags), choiceOf(flags))),
    Command.withShortDescription("Run a guest with its console on this terminal"),
    Command.withDescription(
      [
        "Run a guest in a VM with a small PC's devices: COM1 as console, timer, clock, PCI bus without devices,",
        "a debug exit port at 0xF4 and a scratch register file at 0xE0000000.",
        "",
        "A terminal on standard input is the console's keyboard:",
        "",
        "  Ctrl-C         end the VM (as SIGTERM does)",
        "  Ctrl-A x       end the VM, with status 0",
        "  Ctrl-A c       send Ctrl-C to the guest",
        "  Ctrl-A Ctrl-A  send Ctrl-A to the guest (also Ctrl-A a)",
        "  Ctrl-A h       show these keys",
        "",
        "Other input is typed in as it comes, from when the guest first uses its console, or prints --prompt.",
        "",
        "Exit status: what the guest wrote to its debug exit port; else",
        "",
        "  0    it halted or asked for a reset",
        "  1    the VM could not be made",
        "  2    the command line is not understood",
        "  70   it crashed, or met something that the hypervisor cannot execute",
        "  124  it ran past --timeout",
        "  129  SIGHUP      130  Ctrl-C      141  nobody reads the output      143  SIGTERM"
      ].join("\n  ")
    ),
    Command.withExamples([
      { command: "upcall run hello.bin", description: "A flat binary" },
      { command: "upcall run kernel.elf", description: "An ELF executable or a Multiboot kernel" },
      { command: "upcall run hello.bin --input u --prompt ': ' --stats", description: "From a script, with figures" },
      {
        command: "upcall run --kernel vmlinuz --initrd initrd.cpio --append 'console=ttyS0 reboot=k' --memory 128M",
        description: "Linux on a serial console"
      },
      { command: "upcall run test.bin --clock virtual --seed 7 --timeout 10", description: "A run to be repeated" },
      { command: "upcall run kernel.elf --hypervisor kvm", description: "On this processor, also in 64-bit mode" }
    ])
  )

// The same place from src/cli and from dist/cli.
const HELLO = new URL("../../guests/hello/hello.bin", import.meta.url)

const demo = Command.make("demo", choiceFlags, (flags) =>
  Effect.gen(function*() {
    const report = yield* runOn(yield* settle(flags), {
      image: { _tag: "File", path: fileURLToPath(HELLO), address: undefined },
      memoryBytes: 2 ** 20,
      timeoutSeconds: 60,
      prompt: "type a byte: ",
      input: "u",
      useStdin: false,
      measure: true
    })
    yield* Console.log(`\n${[formatReport(report), ...registersOf(report)].join("\n\n")}`)
    return yield* finish(report)
  })).pipe(
    Command.validate(choiceOf),
    Command.withDescription("Run the bundled guest, answer its question, and show what happened"),
    Command.withExamples([
      { command: "upcall demo" },
      { command: "upcall demo --hypervisor simulated", description: "The same guest on another hypervisor" }
    ])
  )

const subject = Argument.Literals("hypervisor", Doctor.SUBJECTS).pipe(
  Argument.optional,
  Argument.withDescription("Which one to look at (default both, and which hypervisors can be used)")
)

const doctor = Command.make("doctor", { subject }, (flags) =>
  Effect.gen(function*() {
    const { isReady, text } = yield* Doctor.make(Option.getOrUndefined(flags.subject))
    yield* Console.log(text)
    return yield* Effect.fail(new Finished(isReady ? 0 : Outcome.EXIT.failure))
  })).pipe(
    Command.withShortDescription("Tell which hypervisors can run VMs here, and if not, why"),
    Command.withDescription(
      [
        "Tell whether VMs can run on KVM and on ACRN here, and what to do about each thing that is missing.",
        "",
        "  kvm   the processor, the kernel, /dev/kvm and the right to open it, koffi, what this KVM can do and what for,",
        "        and guests of a few instructions that are run on it",
        "  acrn  the hypervisor, the kernel's options, /dev/acrn_hsm and the right to open it, and koffi",
        "",
        "It opens the devices, runs those guests, and changes nothing. The other hypervisors need none of this.",
        "",
        "Exit status:",
        "",
        "  0    VMs can run on it here; when none is named, on some hypervisor, as the emulator always does",
        "  1    something is missing"
      ].join("\n  ")
    ),
    Command.withExamples([
      { command: "upcall doctor", description: "All, and what --hypervisor auto is here" },
      { command: "upcall doctor kvm", description: "KVM only; a script asks for the exit status" }
    ])
  )

const upcall = Command.make("upcall").pipe(
  Command.withDescription("Typed, composable, resource-safe control of virtual machines"),
  Command.withSubcommands([run, demo, doctor]),
  Command.withExamples([
    { command: "upcall demo", description: "See it work" },
    { command: "upcall run hello.bin", description: "Run a guest of your own" },
    { command: "upcall run --help", description: "All about running guests: devices, keys, exit statuses" }
  ])
)

/** One line for each thing that is wrong with a command line. */
const explain = (error: ParseError.NonShowHelpErrors): string => {
  const sentence = error.message
    .replace(
      /\s*Did you mean this\?\s*([^]*)/,
      (_, names: string) => `; did you mean ${names.split(/\s+/).join(" or ")}?`
    )
    .replace(". Expected", ", expected")
  return sentence.charAt(0).toLowerCase() + sentence.slice(1)
}

const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.forEach(event.errors, (error) => Console.error(`upcall: ${explain(error)}`), { discard: true }).pipe(
        Effect.andThen(Console.error(`See '${event.commandPath.join(" ")} --help'.`))
      )
      : CliOutput.defaultPresenter.present(event)
}

const surroundings = Layer.mergeAll(
  CliOutput.layerPresenter(presenter),
  CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] }),
  // Standard output belongs to the guest.
  Logger.layer([
    Logger.make(({ message }) => {
      process.stderr.write(`upcall: ${Array.isArray(message) ? message.join(" ") : String(message)}\n`)
    })
  ])
)

/**
 * Runs the command with the arguments after its name, and gives its exit status. Errors are printed as one sentence.
 */
export const main = (
  args: ReadonlyArray<string>,
  version: string
): Effect.Effect<number, never, Command.Environment | RawMode> =>
  Command.runWith(upcall, { version })(args).pipe(
    Effect.as(0),
    Effect.catch((error) => {
      if (error._tag === "Finished") return Effect.succeed(error.status)
      if (error._tag === "ShowHelp") return Effect.succeed(Outcome.EXIT.usage)
      return Effect.as(Console.error(`upcall: ${error.message}`), Outcome.EXIT.failure)
    }),
    Effect.catchCause((cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
      const defect = Cause.squash(cause)
      const problem = defect instanceof Error ? defect.message : String(defect)
      return Effect.as(Console.error(`upcall: internal error, please report it: ${problem}`), Outcome.EXIT.crash)
    }),
    Effect.provide(surroundings)
  )
