/**
 * Who types what, and when: a script of texts to wait for on a guest's console and answers to them. It is fed byte by
 * byte in the guest's own stack, so what it types comes at the same guest time in every run.
 */

/** Once `waitFor` has come, in UTF-8 and after the step before, `type` is typed. */
export interface Step {
  readonly waitFor: string
  readonly type: string
}

/** A conversation that is under way. An empty `waitFor` has come with the next byte. */
export class Conversation {
  private readonly steps: ReadonlyArray<{ readonly wanted: Uint8Array; readonly type: string }>
  private current = 0
  private seen: Array<number> = []

  constructor(steps: ReadonlyArray<Step>) {
    this.steps = steps.map(({ type, waitFor }) => ({ wanted: new TextEncoder().encode(waitFor), type }))
  }

  /** How many steps were done. */
  get done(): number {
    return this.current
  }

  /** Takes a byte from the guest, and gives what is to be typed now, if it is the last byte that was waited for. */
  take(byte: number): string | undefined {
    const step = this.steps[this.current]
    if (step === undefined) return undefined
    const { type, wanted } = step
    this.seen.push(byte)
    if (this.seen.length > wanted.length) this.seen.shift()
    if (this.seen.length < wanted.length || wanted.some((expected, index) => this.seen[index] !== expected)) {
      return undefined
    }
    this.current++
    this.seen = []
    return type
  }
}
