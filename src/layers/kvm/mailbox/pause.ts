/** Tells the processor that this thread looks for something again and again. Not in every engine, nor in the types yet. */
export const { pause = () => undefined } = Atomics as { readonly pause?: () => void }
