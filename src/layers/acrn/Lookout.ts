/**
 * Which requests on a page are news. The thread that waits tells of each once; told requests are outstanding until
 * they are finished.
 *
 * A request is known by how many the vCPU had finished when it was seen. That count is read before the slot's state: a
 * request that is finished meanwhile, and the next one, are then told of once more at worst, and never missed.
 */
import { SLOT_BYTES } from "../../domain/Limits.ts"
import { FINISHED, type SlotPlaces } from "./waiterWords.ts"

const NEVER = -1

export class Lookout {
  private readonly words: Int32Array
  private readonly page: Int32Array
  private readonly vcpus: number
  private readonly places: SlotPlaces
  /** For each vCPU the count at which its last request was told of. */
  private readonly toldAt: Array<number>

  /** `words` as in `waiterWords`, `page` the words of the I/O request page. */
  constructor(words: Int32Array, page: Int32Array, vcpus: number, places: SlotPlaces) {
    this.words = words
    this.page = page
    this.vcpus = vcpus
    this.places = places
    this.toldAt = Array.from({ length: vcpus }, () => NEVER)
  }

  /** Tells of each new request; the result is whether there was one. */
  look(tell: (vcpu: number) => void): boolean {
    let isNews = false
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      const finished = this.finished(vcpu)
      if (this.toldAt[vcpu] === finished || !this.isForUs(vcpu)) continue
      this.toldAt[vcpu] = finished
      isNews = true
      tell(vcpu)
    }
    return isNews
  }

  /** Whether the driver still has a request of ours, and so would not wait. */
  get isOutstanding(): boolean {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      if (this.toldAt[vcpu] === this.finished(vcpu)) return true
    }
    return false
  }

  private finished(vcpu: number): number {
    return Atomics.load(this.words, FINISHED + vcpu)
  }

  private isForUs(vcpu: number): boolean {
    const slot = vcpu * SLOT_BYTES / 4
    const { kernelHandled, processing, state } = this.places
    return Atomics.load(this.page, slot + state) === processing && Atomics.load(this.page, slot + kernelHandled) === 0
  }
}
