-- SPDX-License-Identifier: Apache-2.0
-- Run by miltertest(8): refused and aborted messages, for an MTA that omits unneeded events, but sends the end of
-- headers.
local connection = mt.connect(address)
if connection == nil then error("no connection to " .. address) end
-- The protocol steps come before the actions, despite what the manual says.
if mt.negotiate(connection, 6, 0x1ff080, 0x1ff) ~= nil then error("negotiation") end
mt.conninfo(connection, "client.example.org", "192.0.2.1")

-- Aborted after each step.
for steps = 1, 4 do
    mt.mailfrom(connection, "<a@example.org>")
    if steps > 1 then mt.rcptto(connection, "<b@example.com>") end
    if steps > 2 then mt.header(connection, "Subject", "reject") end
    if steps > 3 then mt.bodystring(connection, "text\r\n") end
    mt.abort(connection)
end

mt.mailfrom(connection, "<a@example.org>")
mt.rcptto(connection, "<b@example.com>")
mt.header(connection, "Subject", "reject")
mt.eoh(connection)
mt.eom(connection)
if mt.getreply(connection) ~= SMFIR_REPLYCODE then error("not refused") end
if not mt.eom_check(connection, MT_SMTPREPLY, "550", "5.7.1", "no") then error("refused with another reply") end

mt.mailfrom(connection, "<a@example.org>")
mt.rcptto(connection, "<b@example.com>")
mt.header(connection, "Subject", "fine")
mt.eoh(connection)
mt.eom(connection)
if mt.getreply(connection) ~= SMFIR_CONTINUE then error("not accepted") end
mt.disconnect(connection)
