import { readFileSync } from "node:fs"

/** Modules that are loaded with a file of the project, as they are named: files, and packages. */
export const loadedWith = (file: URL, seen = new Set<string>()): Set<string> => {
  if (seen.has(file.href)) return seen
  seen.add(file.href)
  for (
    const [, name = ""] of readFileSync(file, "utf8").matchAll(/^(?:import(?! type)|export)\b[^"]*from "([^"]+)"/gm)
  ) {
    if (name.startsWith(".")) loadedWith(new URL(name, file), seen)
    else seen.add(name)
  }
  return seen
}
