"""The lab: from an experiment file to a report. The only room that knows every other."""
