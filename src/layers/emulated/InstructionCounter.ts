/**
 * The count of guest instructions, and with it the means to make the core come to its timer hook early.
 *
 * @since 0.1.0
 */
import type { CoreMemory } from "./CoreMemory.ts"
import { BATCH_INSTRUCTIONS, CpuOffsets } from "./CpuOffsets.ts"

const WORD = CpuOffsets.instructionCounter / 4

/**
 * Widens the core's 32-bit counter, which wraps, to a number that never does. It has to be read once in 2^32
 * instructions; the timer hook reads it every 100,003.
 *
 * @category models
 * @since 0.1.0
 */
export class InstructionCounter {
  readonly #memory: CoreMemory
  #seen: number
  #total = 0
  #hurried = false

  constructor(memory: CoreMemory) {
    this.#memory = memory
    this.#seen = this.#now
  }

  get #now(): number {
    return this.#memory.words[WORD] ?? 0
  }

  /** Instructions so far. Within an access the instructions of the running block are not in it yet. */
  get total(): number {
    const now = this.#now
    this.#total += (now - this.#seen) >>> 0
    this.#seen = now
    return this.#total
  }

  /**
   * Ends the running batch at the next block boundary: the core believes that it has run its 100,003 instructions. The
   * total does not move. IN and OUT end a block, so after a port access this works at once; otherwise code that was
   * compiled goes on until it leaves its function.
   */
  hurry(): void {
    if (!this.#hurried) {
      this.#hurried = true
      this.#seen += BATCH_INSTRUCTIONS
      this.#memory.words[WORD] = this.#now + BATCH_INSTRUCTIONS
    }
  }

  /** Before a reset of the core, which sets its counter to 0 and asks for the time after that: the total stays. */
  resets(): void {
    this.#total = this.total
    this.#seen = 0
    this.#memory.words[WORD] = 0
  }

  /** A new batch begins, which can be hurried again. */
  batchBegins(): void {
    this.#hurried = false
  }
}
