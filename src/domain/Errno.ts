/**
 * Linux error numbers as hypercalls return them: negative in the result word.
 *
 * @since 0.1.0
 */

/**
 * The error numbers that ACRN's hypercalls and its Linux driver use (`include/uapi/asm-generic/errno-base.h`).
 *
 * @category models
 * @since 0.1.0
 */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOTTY: 25,
  ENOSYS: 38
} as const

const names = new Map<number, string>(Object.entries(Errno).map(([name, value]) => [value, name]))

/**
 * Names a raw hypercall result: `"EPERM (-1)"`, or the bare number when the error is not one of {@link Errno}.
 *
 * @category formatting
 * @since 0.1.0
 */
export const describeResult = (result: number): string => {
  const name = names.get(-result)
  return name === undefined ? String(result) : `${name} (${result})`
}
