"""Plunk Relay: a self-hosted mail relay in one process, with one file of data.

The tree, from the floor up; a module imports only what stands below it, and news travels up as rows of the database:

    relay workers settings sections clock ids errors log memory secretbox datadir spool
                the floor
    db/         units of work, group commit, tables, migrations
    mail/       RFC work: addresses, composing, DKIM, DNS, the SMTP client, templates; values in, values out
    web/        the HTTP toolkit: endpoints, envelope, OpenAPI, limits; knows no feature
    events/     what happened
    projects/ accounts/ domains/ templates/ contacts/ contents/ suppressions/ uploads/ jobs/    the nouns
    emails/     accepting a mail: row, content and due delivery in one unit; the queue itself
    bounces/ inbound/    what comes back, and what is done with mail for addresses of ours
    send/ track/ verify/ delivery/ public/ acme/    the verbs: POST /v1/send and its kin, the deliverer, pages anybody may
                open, certificates
    smtp/ app.py    the doors
    serve.py    what runs, and how it stops
    cli/        what an operator types

In a feature folder: `api.py` what may be asked, `actions.py` what happens, `queries.py` what is stored,
`worker.py` what happens later.
"""

__version__ = "0.1.0"
