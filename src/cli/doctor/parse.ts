/**
 * What the kernel and the system write about a machine, read.
 */

/** Options that are set, from a kernel's configuration file. */
export const parseOptions = (text: string): ReadonlyMap<string, string> =>
  new Map([...text.matchAll(/^(CONFIG_\w+)=([ym])$/gm)].map(([, name, value]) => [name!, value!]))

/** What the first processor of /proc/cpuinfo can do; undefined when it names nothing of x86. */
export const parseFeatures = (text: string): ReadonlySet<string> | undefined => {
  const features = /^flags\s*:(.*)$/m.exec(text)?.[1]
  return features === undefined ? undefined : new Set(features.trim().split(/\s+/))
}

/** Names by number, and who is in which group, from the format that /etc/passwd and /etc/group share. */
export interface Accounts {
  /** The name of a number, or the number as text when it has none. */
  readonly nameOf: (id: number) => string
  /** The names of those whose last field lists a user. */
  readonly listing: (user: string) => ReadonlyArray<string>
}

export const parseAccounts = (text: string): Accounts => {
  const lines = text.split("\n").map((line) => line.split(":")).filter((fields) => fields.length > 2)
  const names = new Map(lines.map((fields) => [Number(fields[2]), fields[0]!]))
  return {
    nameOf: (id) => names.get(id) ?? String(id),
    listing: (user) => lines.filter((fields) => fields.at(-1)!.split(",").includes(user)).map((fields) => fields[0]!)
  }
}
