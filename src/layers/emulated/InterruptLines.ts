/**
 * Interrupt lines that changed while the core could not be told.
 *
 * @since 0.1.0
 */

/**
 * Lines of the core's two 8259 interrupt controllers, 0 to 15.
 *
 * @category constants
 * @since 0.1.0
 */
export const LINES = 16

/**
 * Remembers what happened to each line since the core was last told: whether it rose, and what it is now. Several
 * pulses between two tellings are one, as in hardware that was not looked at in between. Bounded whatever devices do.
 *
 * @category models
 * @since 0.1.0
 */
export class InterruptLines {
  /** One bit a line: its level now; whether it rose since; what the core was last told. */
  #level = 0
  #rose = 0
  #told = 0

  /** Sets a line. A number that is no line's is ignored. */
  set(line: number, high: boolean): void {
    if (!(line >= 0 && line < LINES)) {
      return
    }
    const bit = 1 << line
    if (!high) {
      this.#level &= ~bit
    } else if ((this.#level & bit) === 0) {
      this.#level |= bit
      this.#rose |= bit
    }
  }

  /** The core was reset and believes every line low: those that are high rise again. */
  forgotten(): void {
    this.#told = 0
    this.#rose = this.#level
  }

  /** Whether there is something to tell. */
  get changed(): boolean {
    return (this.#rose | (this.#level ^ this.#told)) !== 0
  }

  /** Tells the core: for each line a fall that lies before a rise, then the rise, then a fall. Lowest line first. */
  tell(raise: (line: number) => void, lower: (line: number) => void): void {
    const level = this.#level
    const rose = this.#rose
    const told = this.#told
    this.#rose = 0
    this.#told = level
    for (let line = 0; line < LINES; line++) {
      const bit = 1 << line
      if ((rose & bit) !== 0) {
        if ((told & bit) !== 0) {
          lower(line)
        }
        raise(line)
      }
      if ((level & bit) === 0 && ((told | rose) & bit) !== 0) {
        lower(line)
      }
    }
  }
}
