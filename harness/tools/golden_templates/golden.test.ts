// A test of the app against the golden bundle in this folder, for vitest.
// Written by `harness golden`. Fill in `app`, and read golden.ts. In React Native and in a browser, call checkImage of
// golden.ts in the app itself: there the image decoder and the runtime are those of the user.
import { describe, expect, it } from 'vitest'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type App, checkImage, load, type Read } from './golden'

const app: App = {
  preprocess: async () => {
    throw new Error('call the app here: an encoded image as the input tensor')
  },
  run: async () => {
    throw new Error('call the app here: the input tensor through the model')
  },
}

const folder = dirname(fileURLToPath(import.meta.url))
const read: Read = (file) => readFile(join(folder, file))
const golden = await load(read)

describe(`${golden.model} in the app`, () => {
  const lines: string[] = []
  it.each(golden.images)('$name', async (image) => {
    const result = await checkImage(golden, image, read, app)
    lines.push(result.line)
    expect(result.problems).toEqual([])
  })
  it('writes dump.jsonl: harness app dump.jsonl names what was done wrong', async () => {
    expect(lines.length).toBeGreaterThan(0)
    await writeFile(join(folder, 'dump.jsonl'), lines.join('\n') + '\n')
  })
})
