-- What does wrk send? POST /v1/send with 1 KB of HTML, each to another recipient. Arguments: key, sender, tag.
-- It prints one line of JSON: how many requests were answered, in how many seconds, and how many failed.

local paragraph = "<p>Thank you for your order. We have received your payment and will tell you when it leaves our house.</p>"
local body = "<h1>Your order</h1>" .. paragraph:rep(9) .. "<p><a href='https://shop.example.com/orders'>See it</a></p>"
local template = '{"from": "%s", "to": "%s-%d@example.org", "subject": "Your order %d", "body": "%s"}'
local headers = { ["Content-Type"] = "application/json" }
local sender, tag
local number = 0

function init(args)
  headers["Authorization"] = "Bearer " .. args[1]
  sender, tag = args[2], args[3]
end

function request()
  number = number + 1
  return wrk.format("POST", nil, headers, template:format(sender, tag, number, number, body))
end

function done(summary)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(('{"requests": %d, "seconds": %.6f, "failed": %d}'):format(summary.requests, summary.duration / 1000000, failed))
end
