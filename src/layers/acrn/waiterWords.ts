/**
 * What the layer and the thread that waits for a VM's I/O requests say to each other: words of shared memory.
 */
import { MAX_VCPUS } from "../../domain/Limits.ts"

/** Where the thread is: only between `Running` and `Ended` may it be inside the driver. */
export const ThreadState = { Starting: 0, Running: 1, Ended: 2 } as const

export const STATE = 0
export const THREAD_ID = 1
/** Not 0 once the thread shall end. */
export const STOP = 2
/** Counts whatever the thread should look up for. */
export const BELL = 3
/** For each vCPU the requests that were finished so far. */
export const FINISHED = 4
export const WORDS = FINISHED + MAX_VCPUS

/** Where the words of a slot are that tell whose it is, and the state in which it may be ours. */
export interface SlotPlaces {
  readonly state: number
  readonly kernelHandled: number
  readonly processing: number
}

/**
 * A VM for a thread to wait in. The numbers of the ABI come with it: the modules that make them load Effect's schemas,
 * which takes a new thread many times as long as all else that it loads.
 */
export interface WaiterJob {
  readonly fd: number
  /** The request that waits. */
  readonly attachRequest: number
  readonly places: SlotPlaces
  readonly vcpus: number
  readonly words: SharedArrayBuffer
  /** The memory of the I/O request page, which begins `pageOffset` bytes into it. */
  readonly page: SharedArrayBuffer
  readonly pageOffset: number
}

/** What a thread says: that it is ready for a VM, a vCPU with a new request, or with what result a VM is over. */
export type WaiterMessage = "Ready" | { readonly vcpu: number } | { readonly result: number }
