/**
 * One counter of an 8254, pulse by pulse, written from the data sheet's mode descriptions: what the counter that knows
 * only formulas is compared with. Counts are at least 2.
 */
export class PitReference {
  isBcd = false
  out = true
  isLoaded = false
  private mode = 3
  private gate: boolean
  private register: number | undefined
  private loaded = 0
  private element = 0
  private isLoadDue = false
  private isStrobing = false
  private hasStruck = false

  constructor(gate: boolean) {
    this.gate = gate
  }

  get count(): number {
    const value = this.element
    return this.isBcd ?
      Math.floor(value / 1000) % 10 * 0x1000 + Math.floor(value / 100) % 10 * 0x100 +
      Math.floor(value / 10) % 10 * 0x10 + value % 10 :
      value & 0xffff
  }

  control(mode: number, bcd: boolean): void {
    this.mode = mode
    this.isBcd = bcd
    this.register = undefined
    this.isLoaded = false
    this.isLoadDue = false
    this.isStrobing = false
    this.out = mode !== 0
  }

  write(count: number): void {
    const isFirst = this.register === undefined
    this.register = count
    if (this.mode === 0 || this.mode === 4) {
      this.isLoadDue = true
      if (this.mode === 0) this.out = false
    } else if ((this.mode === 2 || this.mode === 3) && isFirst) {
      this.isLoadDue = true
    }
  }

  setGate(high: boolean): void {
    if (high === this.gate) return
    this.gate = high
    if (this.mode === 2 || this.mode === 3) {
      if (!high) this.out = true
      else if (this.register !== undefined) this.isLoadDue = true
    } else if ((this.mode === 1 || this.mode === 5) && high && this.register !== undefined) {
      this.isLoadDue = true
    }
  }

  clock(): void {
    if (this.isStrobing) {
      this.isStrobing = false
      this.out = true
    }
    if (this.isLoadDue) return this.load()
    if (!this.isLoaded) return
    switch (this.mode) {
      case 0:
        if (this.gate) this.down()
        if (this.element === 0) this.out = true
        return
      case 1:
        this.down()
        if (this.element === 0) this.out = true
        return
      case 2:
        if (!this.gate) return
        if (this.element === 1) {
          this.reload()
          this.out = true
        } else {
          this.element--
          if (this.element === 1) this.out = false
        }
        return
      case 3: {
        if (!this.gate) return
        const last = this.loaded % 2 === 1 && this.out ? 0 : 2
        if (this.element > last) this.element -= 2
        else {
          this.out = !this.out
          this.reload()
        }
        return
      }
      default:
        if (this.mode === 4 && !this.gate) return
        this.down()
        if (this.element === 0 && !this.hasStruck) {
          this.hasStruck = true
          this.isStrobing = true
          this.out = false
        }
    }
  }

  private load(): void {
    this.isLoadDue = false
    this.isLoaded = true
    this.hasStruck = false
    this.reload()
    if (this.mode === 1) this.out = false
    if (this.mode === 2 || this.mode === 3) this.out = true
  }

  private reload(): void {
    this.loaded = this.register!
    this.element = this.mode === 3 ? this.loaded - this.loaded % 2 : this.loaded
  }

  private down(): void {
    this.element = this.element === 0 ? (this.isBcd ? 9999 : 65_535) : this.element - 1
  }
}
