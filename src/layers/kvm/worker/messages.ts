/**
 * What the layer and a thread say to each other, beside the words of the mailbox.
 */

/** A vCPU for the thread to run until it is sent away. */
export interface VcpuJob {
  readonly fd: number
  /** The number of KVM_RUN. */
  readonly run: number
  readonly vcpu: number
  readonly words: Int32Array<SharedArrayBuffer>
  readonly spins: number
}

/** That the thread is ready, under which id of the kernel's; or that it left its vCPU. */
export type VcpuThreadMessage = { readonly threadId: number } | "Left"
