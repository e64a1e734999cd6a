"""The stages of a job, in the order of app.jobs.states.Stage: each a generator of messages over one Work."""
