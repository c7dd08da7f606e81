/**
 * Turns the code that the core generates for hot guest pages into functions in its table, at once.
 *
 * Compiling at once, and not in the background, is what makes a run reproducible: which instruction is the first to run
 * compiled depends on nothing but the guest.
 *
 * @since 0.1.0
 */
import { FunctionTable } from "./CpuOffsets.ts"
import type { Api, Extern, Instance, Memory, Table, WasmFunction } from "./WebAssemblyApi.ts"

/**
 * Makes the core's two imports for compiled code.
 *
 * @category models
 * @since 0.1.0
 */
export class JitCompiler {
  readonly #api: Api
  readonly #table: Table
  #core: { readonly memory: Memory; readonly imports: Readonly<Record<string, Extern>> } | undefined
  #finish: (index: number, start: number, flags: number) => void = () => undefined
  #compiled: Array<readonly [index: number, start: number, flags: number]> = []

  constructor(api: Api, table: Table) {
    this.#api = api
    this.#table = table
  }

  /** Compiled code imports the core's exports, and its memory as `m`. `finish` tells the core of a function. */
  connect(
    exports: Instance["exports"],
    memory: Memory,
    finish: (index: number, start: number, flags: number) => void
  ): void {
    this.#core = { memory, imports: { ...exports, m: memory } }
    this.#finish = finish
  }

  /** The core's import: `length` bytes of a module at `pointer` become the function at `index`. */
  readonly finalize = (index: number, start: number, flags: number, pointer: number, length: number): void => {
    if (this.#core === undefined) {
      return
    }
    const { imports, memory } = this.#core
    const module = new this.#api.Module(new Uint8Array(memory.buffer, pointer >>> 0, length >>> 0))
    const { exports } = new this.#api.Instance(module, { e: imports })
    this.#table.set(FunctionTable.compiledCode + index, exports["f"] as WasmFunction)
    // The core holds a lock now, so it is told later, by `finish`.
    this.#compiled.push([index, start, flags])
  }

  /** The core's import: the function at `index` is not needed any more. */
  readonly clear = (index: number): void => {
    this.#table.set(FunctionTable.compiledCode + index, null)
  }

  /** Tells the core which functions it can use. Only while it runs no instruction. */
  finish(): void {
    if (this.#compiled.length > 0) {
      const compiled = this.#compiled
      this.#compiled = []
      for (const [index, start, flags] of compiled) {
        this.#finish(index, start, flags)
      }
    }
  }
}
