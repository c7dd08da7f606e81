/**
 * Views on the core's linear memory, which detach whenever its heap grows.
 *
 * The memory is not shared. A shared one would keep its views, but V8 does not count it when it decides to collect
 * garbage, so programs that make and drop CPUs would run out of memory; and in a browser it asks for special headers.
 *
 * @since 0.1.0
 */
import type { Memory } from "./WebAssemblyApi.ts"

/**
 * The core's memory by byte address. A view that a getter gives is good until the core runs again: take it anew each
 * time.
 *
 * @category models
 * @since 0.1.0
 */
export class CoreMemory {
  readonly #memory: Memory
  #bytes: Uint8Array
  #words: Int32Array
  #view: DataView

  constructor(memory: Memory) {
    this.#memory = memory
    this.#bytes = new Uint8Array(memory.buffer)
    this.#words = new Int32Array(memory.buffer)
    this.#view = new DataView(memory.buffer)
  }

  get bytes(): Uint8Array {
    this.#renew()
    return this.#bytes
  }

  /** Words; the index is the byte address divided by 4. */
  get words(): Int32Array {
    this.#renew()
    return this.#words
  }

  get view(): DataView {
    this.#renew()
    return this.#view
  }

  #renew(): void {
    // A detached view has no bytes, and the memory is never empty.
    if (this.#bytes.length === 0) {
      this.#bytes = new Uint8Array(this.#memory.buffer)
      this.#words = new Int32Array(this.#memory.buffer)
      this.#view = new DataView(this.#memory.buffer)
    }
  }
}
