/**
 * What the data sheet says, as plainly as it can be said: no clock and no fibers, one call of `tick` for each microsecond.
 * It is slow, and it is right because there is hardly a way for it to be wrong.
 */
import { Control, Register, Status } from "./Timer.ts"

const ALL_ONES = 0xffff_ffff

export class TimerModel {
  private load = 0
  private left = 0
  private ctrl = 0
  private status = 0

  get interrupts(): boolean {
    return (this.ctrl & Control.INTERRUPT) !== 0 && (this.status & Status.EXPIRED) !== 0
  }

  read(offset: number): number {
    if (offset === Register.LOAD) return this.load
    if (offset === Register.VALUE) return this.left
    if (offset === Register.CTRL) return this.ctrl
    if (offset === Register.STATUS) return this.status
    return ALL_ONES
  }

  write(offset: number, word: number): void {
    if (offset === Register.LOAD) this.load = word
    if (offset === Register.STATUS) this.status &= ~word
    if (offset !== Register.CTRL) return
    const wasEnabled = (this.ctrl & Control.ENABLE) !== 0
    this.ctrl = word & 7
    if ((this.ctrl & Control.ENABLE) === 0) this.left = 0
    else if (!wasEnabled) this.begin()
  }

  tick(): void {
    if (this.left === 0) return
    this.left--
    if (this.left > 0) return
    this.status |= Status.EXPIRED
    if ((this.ctrl & Control.PERIODIC) === 0) this.ctrl &= ~Control.ENABLE
    else this.begin()
  }

  private begin(): void {
    this.left = this.load
    if (this.left === 0) this.ctrl &= ~Control.ENABLE
  }
}
