"""Running pods: one worker per pod compares what the API wants with what the runtime has, again and again.

``plan``, ``status``, ``environment``, ``fields``, ``resources``, ``configs`` and ``refuse`` are pure; ``worker``
and ``manager`` act. No state is kept outside the runtime, the API and the pods' volumes.
"""
