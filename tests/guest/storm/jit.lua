-- SPDX-License-Identifier: Apache-2.0
-- Work that LuaJIT compiles: numbers, strings, tables, closures, and traces that are left.
local function sieve(n)
  local composite, count = {}, 0
  for i = 2, n do
    if not composite[i] then
      count = count + 1
      for j = i * i, n, i do composite[j] = true end
    end
  end
  return count
end
local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
local function mix(n)
  local x = 0.5
  for i = 1, n do x = i % 7 == 0 and 4 * x * (1 - x) or 3.57 * x * (1 - x) end
  return x
end
local words = {}
for i = 1, 20000 do words[#words + 1] = string.format("%05d-%s", (i * 7919) % 20011, ("x"):rep(i % 5)) end
table.sort(words)
print(string.format("lua: %d %d %.12f %s %d", sieve(300000), fib(27), mix(2000000), words[777], #table.concat(words, ",")))
