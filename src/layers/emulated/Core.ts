/**
 * One instance of the v86 core: its imports, its memory, and how a slice of it runs.
 *
 * @since 0.1.0
 */
import { CoreMemory } from "./CoreMemory.ts"
import { CpuError } from "./CpuError.ts"
import type { CpuModule } from "./CpuModule.ts"
import { CpuOffsets, FunctionTable } from "./CpuOffsets.ts"
import type { CpuOptions, SliceEnd } from "./CpuOptions.ts"
import { deviceAccess } from "./DeviceAccess.ts"
import { type GuestRam, makeGuestRam } from "./GuestRam.ts"
import { InstructionCounter } from "./InstructionCounter.ts"
import { InterruptLines } from "./InterruptLines.ts"
import { JitCompiler } from "./JitCompiler.ts"
import { makeShim } from "./SuspendingShim.ts"
import type { Api, Memory, WasmFunction } from "./WebAssemblyApi.ts"

/** Batches of 100,003 instructions in one slice at most, so that a slice ends also when `now` stands still. */
const SLICE_BATCHES = 32

const preempted: SliceEnd = { _tag: "Preempted" }
const dead: SliceEnd = { _tag: "Dead" }

/** The exports of the core that are called from here. */
interface CoreExports {
  readonly memory: Memory
  readonly rust_init: () => void
  readonly allocate_memory: (bytes: number) => number
  readonly reset_cpu: () => void
  readonly set_jit_config: (index: number, value: number) => void
  readonly main_loop: WasmFunction
  readonly full_clear_tlb: () => void
  readonly update_state_flags: () => void
  readonly get_eflags: () => number
  readonly device_raise_irq: (line: number) => void
  readonly device_lower_irq: (line: number) => void
  readonly jit_dirty_cache: (start: number, end: number) => void
  readonly codegen_finalize_finished: (index: number, start: number, flags: number) => void
  readonly get_pic_addr_master: () => number
  readonly get_pic_addr_slave: () => number
}

const JIT_DISABLED = 0
const FLAG_INTERRUPT = 1 << 9
const LAST_WORDS = 512

// One 8259 in the core (`struct Pic0` in src/rust/cpu/pic.rs): 13 bytes, of which one tells the first from the second.
const PIC_BYTES = 13
const PIC_IS_MASTER = 4

/**
 * A running instance. Its owner sees to it that slices do not overlap and that nothing is called after a failure.
 *
 * @category models
 * @since 0.1.0
 */
export class Core {
  readonly ram: GuestRam
  readonly memory: CoreMemory
  readonly counter: InstructionCounter
  /** How often the core waited for a promise. */
  suspensions = 0

  readonly #api: Api
  readonly #exports: CoreExports
  readonly #mainLoop: () => Promise<unknown>
  readonly #jit: JitCompiler
  readonly #lines = new InterruptLines()
  readonly #onTimers: () => number
  readonly #releaseRam: () => void

  // Of the running slice.
  #running = false
  #stopping = false
  #batches = 0
  /** HLT was feigned, to have the core leave its loop. */
  #feignedHalt = false

  /** Thrown through the core as soon as it can be. */
  #ending: CpuError | undefined
  #lastWords = ""

  constructor({ api, core, shim }: CpuModule, options: CpuOptions) {
    this.#api = api
    this.#onTimers = options.onTimers
    const table = new api.Table({ element: "anyfunc", initial: FunctionTable.size })
    const jit = new JitCompiler(api, table)
    this.#jit = jit
    const accesses = makeShim(api, shim, (suspend) =>
      deviceAccess(
        options,
        (promise) => {
          this.suspensions += 1
          return suspend(promise)
        },
        (during, defect) => this.#handlerFailed(during, defect),
        () => this.#checkEnding()
      ))
    const { exports } = new api.Instance(core, {
      env: {
        __indirect_function_table: table,
        ...accesses,
        microtick: () => options.now(this.counter.total),
        get_rand_int: options.random,
        run_hardware_timers: () => this.#timerHook(),
        codegen_finalize: jit.finalize,
        jit_clear_func: jit.clear,
        cpu_event_halt: () => undefined,
        // The core leaves HLT because of an interrupt.
        stop_idling: () => {
          this.#feignedHalt = false
        },
        console_log_from_wasm: (pointer: number, length: number) => this.#remember(pointer >>> 0, length >>> 0)
      }
    })
    this.#exports = exports as unknown as CoreExports
    const linear = this.#exports.memory
    jit.connect(exports, linear, this.#exports.codegen_finalize_finished)
    this.#mainLoop = api.promising(this.#exports.main_loop)
    this.#exports.rust_init()
    this.memory = new CoreMemory(linear)
    this.counter = new InstructionCounter(this.memory)
    const { memoryBytes } = options
    this.memory.view.setUint32(CpuOffsets.memorySize, memoryBytes, true)
    const allocatedBefore = linear.buffer.byteLength
    const base = this.#exports.allocate_memory(memoryBytes) >>> 0
    if (base === 0) {
      throw new CpuError({
        reason: { _tag: "MemorySize", bytes: memoryBytes, problem: "the JavaScript engine has not that much" }
      })
    }
    // The allocator leaves marks in what it had. What the memory grew by is zero, and costs nothing until it is touched.
    this.memory.bytes.fill(0, base, Math.min(base + memoryBytes, allocatedBefore))
    const { ram, release } = makeGuestRam(this.memory, base, memoryBytes, (start, end) => {
      // A core that failed may hold the lock that this takes.
      if (this.#ending === undefined) {
        this.#exports.jit_dirty_cache(start, end)
      }
    })
    this.ram = ram
    this.#releaseRam = release
    this.#exports.set_jit_config(JIT_DISABLED, options.jit === false ? 1 : 0)
    this.counter.resets()
    this.#exports.reset_cpu()
  }

  /** Runs one slice. Rejects with a `CpuError` of reason `Shutdown`, `HandlerFailed`, or what `end` was given. */
  async slice(): Promise<SliceEnd> {
    this.#running = true
    this.#stopping = false
    this.#batches = 0
    this.counter.batchBegins()
    try {
      this.#tellLines()
      const waitMs = await this.#mainLoop()
      this.#checkEnding()
      this.#jit.finish()
      return this.#sliceEnd(waitMs as number)
    } catch (cause) {
      throw this.#crashed(cause)
    } finally {
      this.#running = false
    }
  }

  /** Has the running slice end soon. */
  stop(): void {
    if (this.#running) {
      this.#stopping = true
      this.counter.hurry()
    }
  }

  setLine(line: number, high: boolean): void {
    this.#lines.set(line, high)
    if (this.#running && this.#lines.changed) {
      this.counter.hurry()
    }
  }

  /** EFLAGS, whose arithmetic flags the core computes when they are asked for. */
  eflags(): number {
    return this.#exports.get_eflags()
  }

  /** Has the core derive anew what follows from registers that were written. */
  registersWritten(): void {
    this.#exports.full_clear_tlb()
    this.#exports.update_state_flags()
  }

  /** The state after power-on, save for RAM and the levels of lines. */
  reset(): void {
    this.#jit.finish()
    const { get_pic_addr_master, get_pic_addr_slave, reset_cpu } = this.#exports
    for (const address of [get_pic_addr_master(), get_pic_addr_slave()]) {
      const pic = this.memory.bytes.subarray(address >>> 0, (address >>> 0) + PIC_BYTES)
      const isMaster = pic[PIC_IS_MASTER] ?? 0
      pic.fill(0)
      pic[PIC_IS_MASTER] = isMaster
    }
    this.#lines.forgotten()
    this.counter.resets()
    reset_cpu()
  }

  /** The guest executes nothing more once it comes to a safe point or out of its wait; RAM is let go of now. */
  end(error: CpuError): void {
    this.#ending ??= error
    this.stop()
    this.#releaseRam()
  }

  /** The core's hook: between two instructions, or inside HLT. */
  #timerHook(): number {
    this.#checkEnding()
    this.#batches += 1
    if (!this.#halted) {
      this.#jit.finish()
    }
    const waitMs = this.#callOnTimers()
    if (!this.#stopping && this.#batches < SLICE_BATCHES) {
      this.#tellLines()
    } else if (!this.#halted) {
      // Nothing else ends the core's loop before its time.
      this.#feignedHalt = true
      this.#halted = true
    }
    this.counter.batchBegins()
    return waitMs
  }

  #callOnTimers(): number {
    try {
      return this.#onTimers()
    } catch (defect) {
      throw this.#handlerFailed("onTimers", defect)
    }
  }

  #tellLines(): void {
    if (this.#lines.changed) {
      this.#lines.tell(this.#exports.device_raise_irq, this.#exports.device_lower_irq)
    }
  }

  #sliceEnd(waitMs: number): SliceEnd {
    if (this.#feignedHalt) {
      this.#feignedHalt = false
      this.#halted = false
    }
    if (!this.#halted) {
      return preempted
    }
    const flags = this.memory.view.getUint32(CpuOffsets.flags, true)
    return (flags & FLAG_INTERRUPT) === 0 ? dead : { _tag: "Halted", waitMs }
  }

  get #halted(): boolean {
    return this.memory.bytes[CpuOffsets.halted] !== 0
  }

  set #halted(halted: boolean) {
    this.memory.bytes[CpuOffsets.halted] = Number(halted)
  }

  #checkEnding(): void {
    if (this.#ending !== undefined) {
      throw this.#ending
    }
  }

  #handlerFailed(during: string, defect: unknown): CpuError {
    this.#ending ??= new CpuError({ reason: { _tag: "HandlerFailed", during, defect } })
    return this.#ending
  }

  #crashed(cause: unknown): CpuError {
    if (this.#ending === undefined && cause instanceof this.#api.RuntimeError) {
      const eip = this.memory.view.getUint32(CpuOffsets.previousInstructionPointer, true)
      // A panic of the core is an unreachable instruction; what it is about went to the console before.
      const panicked = cause.message === "unreachable" && this.#lastWords !== ""
      const words = panicked ? this.#lastWords : cause.message
      this.#ending = new CpuError({ reason: { _tag: "Shutdown", cause: words, eip } })
    }
    return this.#ending ?? this.#handlerFailed("a callback", cause)
  }

  /** The core writes to its console only to say why it gives up. */
  #remember(pointer: number, length: number): void {
    const bytes = this.memory.bytes.subarray(pointer, pointer + Math.min(length, LAST_WORDS))
    this.#lastWords = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")
  }
}
