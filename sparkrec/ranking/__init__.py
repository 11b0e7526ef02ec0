"""The second stage: candidates from several sources, put in order by a model that has learned from what users chose."""
